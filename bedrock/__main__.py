from bedrock.cli import main

main(prog_name="bedrock")

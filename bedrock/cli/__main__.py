from bedrock.cli import main

main()

"""Write docs/reference/settings.md, docs/reference/cli.md and conf/bedrock.toml from the code that they describe."""

from __future__ import annotations

from pathlib import Path

import click

from bedrock.cli import main
from bedrock.settings import all_settings, example_config

ROOT = Path(__file__).parent.parent


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "A flag wins over a variable, that over the file (`--config FILE` or `BEDROCK_CONFIG`), that over the default.",
        "",
        "| flag | variable | in the file | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for info in all_settings():
        name = info.name.replace("|", "\\|")
        lines.append(f"| `{info.flag}` | `{info.env}` | `{name}` | `{info.shown_default}` | {info.meaning} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    parts = ["# The command line", "", "What `--help` prints.", ""]

    def add(command: click.Command, name: str) -> None:
        context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
        parts.extend([f"## {name}", "", "```text", command.get_help(context), "```", ""])
        if isinstance(command, click.Group):
            for child in sorted(command.commands):
                add(command.commands[child], f"{name} {child}")

    add(main, "bedrock")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    reference = ROOT / "docs" / "reference"
    return {
        reference / "settings.md": settings_page(),
        reference / "cli.md": cli_page(),
        ROOT / "conf" / "bedrock.toml": example_config(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))

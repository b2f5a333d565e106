"""A report's findings and short tables as a page of docs/reproduction, with its scores beside it.

python benchmarks/reproduction.py STORE/reports/NAME LOG docs/reproduction/NAME.md "command" "machine" [FIGURE ...]
"""

import json
import shutil
import sys
from pathlib import Path

from widthwise.report.table import Table, to_markdown


def main(report: str, log: str, page: str, command: str, machine: str, *figures: str) -> None:
    folder, page_path = Path(report), Path(page)
    findings = json.loads((folder / "findings.json").read_text())
    title = command.split("/")[-1].removesuffix(".yaml")
    lines = [f"# {title}", "", f"`{command}`", "", f"{machine}. All scores: [CSV]({page_path.stem}-scores.csv); "]
    lines[-1] += f"[log]({page_path.stem}.txt)."
    for finding in findings:
        lines += ["", f"**{finding['claim']}: {finding['verdict']}.** {finding['sentence']}", ""]
        lines += [finding["decided by"]]
    for file in sorted(folder.glob("summary_*.json")) + sorted(folder.glob("paper_*.json")):
        rows = json.loads(file.read_text())
        header = tuple(rows[0])
        table = Table(file.stem, file.stem, "", header, tuple(tuple(row[name] for name in header) for row in rows))
        lines += ["", f"## {file.stem.replace('_', ' ')}", "", to_markdown(table)]
    for name in figures:
        lines += ["", f"![{name}](figures/{name}.svg)"]
        page_path.with_name("figures").mkdir(exist_ok=True)
        shutil.copyfile(folder / "figures" / f"{name}.svg", page_path.with_name("figures") / f"{name}.svg")
    page_path.write_text("\n".join(lines) + "\n")
    shutil.copyfile(folder / "scores.csv", page_path.with_name(f"{page_path.stem}-scores.csv"))
    shutil.copyfile(log, page_path.with_suffix(".txt"))


if __name__ == "__main__":
    main(*sys.argv[1:])

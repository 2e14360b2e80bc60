"""The supervisor in the background: `python -m mags.supervisor --report FD SETTINGS_JSON` (see background.py)."""

from __future__ import annotations

import asyncio
import sys

from mags.kit import logs
from mags.supervisor import foreground
from mags.supervisor.config import Settings


def main(words: list[str]) -> int:
    flag, descriptor, text = words
    if flag != "--report":
        raise SystemExit("This program is started by `mags up -d`.")
    logs.configure("up")
    report = foreground.Report(int(descriptor))
    settings = Settings.model_validate_json(text)

    def ready(url: str) -> None:
        report.say("ready", url)
        report.close()

    try:
        asyncio.run(foreground.serve(settings, ready=ready, note=lambda step: report.say("note", step)))
    except foreground.FAILURES as error:
        report.say("failed", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

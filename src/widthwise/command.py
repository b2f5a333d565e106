"""What every command takes, and how it says what it found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from widthwise.errors import UsageError

_everywhere = Group("Everywhere")


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """Return a whole number; 2.5 is none, and is not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'it takes a whole number, not "{tokens[0].value}".') from None


Whole = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*", group=_everywhere)
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    store: Annotated[Path, Parameter(env_var="WIDTHWISE_STORE")] = Path(".widthwise")
    """Folder in which networks, features and scores live."""
    data: Path | None = None
    """Folder of data sets; otherwise the study file's data.root, or WIDTHWISE_DATA."""
    device: str = "cpu"
    """Where networks train and files of features are compared: cpu, cuda, cuda:1."""
    jobs: Whole | None = None
    """Processes that train at the same time; one for each core if left out."""
    fleet: Whole | None = None
    """Networks that train as one, where their form is a fleet; found by a measurement if left out."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """No progress on stderr."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Stdout is exactly one JSON document."""

    @property
    def means(self) -> dict[str, Any]:
        """By what networks train, as `run` and `plan` take it."""
        return {"device": self.device, "jobs": self.jobs, "fleet_size": self.fleet}

    def check(self) -> None:
        """Refuse what no command can take.

        Raises:
            UsageError: naming the option.
        """
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be at least 1, not {self.jobs}.")
        if self.fleet is not None and self.fleet < 2:
            raise UsageError(f"--fleet must be at least 2, not {self.fleet}; leave it out to have it measured.")
        if self.device != "cpu":
            from widthwise import devices

            devices.named(self.device, "--device")


NOTHING = Common()


def say(value: Any) -> None:
    """Print text as it is, anything else as one JSON document."""
    print(value if isinstance(value, str) else json.dumps(value, indent=1, default=str, allow_nan=False))

"""The parts of a study file, as types: what each key may hold, and what it is when left out."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator
from pydantic.json_schema import WithJsonSchema

from widthwise.errors import UsageError


def as_width(value: Any) -> Fraction:
    """Return a width or base, given as text or number, as an exact fraction.

    Raises:
        UsageError: if it is none, or not above 0.
    """
    try:
        width = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"a width is a fraction such as 1/4, not {value!r}") from None
    if width <= 0:
        raise UsageError(f"a width is above 0, not {value!r}")
    return width


Width = Annotated[
    Fraction,
    BeforeValidator(as_width),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+(/\d+)?$"}, {"type": "number"}]}),
]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A part of a study file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WithOptions(BaseModel):
    """A member of a family by its `kind`, with the member's own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The member's options as given, without those left to their defaults."""
        return dict(self.__pydantic_extra__ or {})


class Data(WithOptions):
    """Which rows: a data set, how many of its training and test rows, and what share no network trains on."""

    kind: str = "digits"
    rows: Count | Literal["all"] = "all"
    test_rows: Count | Literal["all"] = "all"
    reserve: Share = 0.1
    label_noise: Share = 0.0
    root: Path | None = None


class Network(WithOptions):
    """Which architecture; `base` multiplies the textbook network's widths."""

    kind: str = "mlp"
    base: Width = Fraction(1)


class Training(Strict):
    """How every network is trained: SGD with momentum; the paper's schedule is `steps`, for texts AdamW and `cosine`.

    `steps` divides the rate by 10 at 1/2 and 3/4 of the epochs; `cosine` falls to zero; `one_cycle` rises linearly over
    the first 30 % before it does. Of AdamW, `momentum` is that of the gradient; that of its square is 0.999. `augment`
    left out means the data set's own default. With `shared_batches` all networks see one order and augmentation of the
    samples, whatever their seeds. With `init: slice_of_wide` narrow networks start as disjoint slices of wide ones, in
    the scale they have there or adapted to their own, smaller fan-in (`init_scale`). With `precision: bfloat16`
    products, not weights and sums, are of bfloat16 (autocast); left out, the device's table says.

    `normalised_sgd` divides every network's gradient by its norm, has no momentum, and takes its decay `outside` of the
    norm, as a factor on the weights, or `inside`, as part of what is divided. With `fresh` an epoch is so many batches
    of samples that are seen only once, of data that can be drawn without end; a network then stops where an epoch's
    loss falls below `stop_below`, or has not fallen by a hundredth within `stop_flat` epochs (0: neither). With
    `init: shared_neurons` the first layers of the networks of every width, seed after seed, are one sequence of rows.
    """

    epochs: Annotated[int, Field(ge=0)] = 30
    batch_size: Count = 128
    rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Share = 0.9
    optimiser: Literal["sgd", "adamw", "normalised_sgd"] = "sgd"
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["one_cycle", "steps", "cosine", "constant"] = "one_cycle"
    augment: bool | None = None
    shared_batches: bool = False
    init: Literal["independent", "slice_of_wide", "shared_neurons"] = "independent"
    init_scale: Literal["kept", "adapted"] = "adapted"
    precision: Literal["float32", "bfloat16"] | None = None
    decay: Literal["outside", "inside"] = "outside"
    fresh: Count | None = None
    stop_below: Annotated[float, Field(ge=0)] = 0.0
    stop_flat: Annotated[int, Field(ge=0)] = 0


NORMALISED = {"decay", "fresh", "stop_below", "stop_flat"}  # what of `Training` is of normalised_sgd alone


class Tuning(Strict):
    """Rates and weight decays to choose from for every width, on the reserve; weight decays left out: the one."""

    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = ()

    @field_validator("rates", "weight_decays")
    @classmethod
    def _each_once(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"each value once, not {', '.join(f'{value:g}' for value in values)}")
        return values


class Choice(WithOptions):
    """One study of the file: a name in `studies/`, with options."""

    kind: str


class Primary(Strict):
    """The one endpoint that is declared before the run."""

    study: str = "width_gap"
    matching: Literal["parameters", "features"] = "parameters"


class Margins(Strict):
    """What counts as a difference."""

    span_gap: Annotated[float, Field(ge=0)] = 0.002
    probe_accuracy: Annotated[float, Field(ge=0)] = 0.005


def as_choice(value: Any) -> Any:
    """Return one study of a file as a mapping, where it is given by its name alone."""
    return {"kind": value} if isinstance(value, str) else value


class Study(Strict):
    """A study file: one store's worth of networks, and any number of studies over them."""

    title: str = "A study of width"
    data: Data = Data()
    network: Network = Network()
    training: Training = Training()
    tuning: Tuning | None = None
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = tuple(Fraction(1, k) for k in (1, 2, 4, 8))
    wide: Count = 4
    concatenations: dict[Width, Count] = {}
    neurons: dict[Count, Count] = {}
    studies: Annotated[tuple[Annotated[Choice, BeforeValidator(as_choice)], ...], Field(min_length=1)] = (
        Choice(kind="width_gap"),
        Choice(kind="reverse_gap"),
    )
    primary: Primary = Primary()
    margins: Margins = Margins()
    presets: dict[str, dict[str, Any]] = {}

    @property
    def by_neurons(self) -> bool:
        """Whether its networks differ in their number of neurons, not in a fraction of a width."""
        return bool(self.neurons)

    @property
    def narrow_widths(self) -> tuple[Fraction, ...]:
        """The widths below 1, widest first; none where networks differ in their number of neurons."""
        return () if self.by_neurons else tuple(sorted((w for w in set(self.widths) if w < 1), reverse=True))

    def plain(self) -> dict[str, Any]:
        """Return the study as the plain values of a study file, without presets and this machine's folders."""
        unset = {"tuning": True} if self.tuning is None else {}
        unset |= {"widths": True, "wide": True} if self.by_neurons else {"neurons": True}
        unset |= {"training": NORMALISED} if self.training.optimiser != "normalised_sgd" else {}
        return self.model_dump(mode="json", exclude={"presets": True, "data": {"root"}, **unset})

"""The parameters of a recipe of mergekit, over depth: what all its tensors share, and what each model has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.checkpoints.mergekit.document import RecipeFile
from pipeline.checkpoints.mergekit.fields import Field
from pipeline.checkpoints.mergekit.schedule import Schedule
from pipeline.checkpoints.mergekit.settings import Setting, Value, method_fields
from pipeline.spec.yaml_reader import ValuePath

#: End of errors about what a spec has no field for.
_CAN = "a spec cannot hold this, but lines merge --recipe merges by it"
#: Profiles that differ less are the same: mergekit's numbers have a few digits.
SAME = 1e-9
#: Values at evenly spaced depths; one value is the same at all depths.
Profile = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GivenParameters:
    """A recipe whose parameters are the same for all tensors of a depth.

    Attributes:
        recipe: the file.
        models: those of its only slice.
        base: the model that task vectors start from, or None.
        shared: parameters of all models.
        own: of each model.
        places: parameter -> the first place that sets it.
    """

    recipe: RecipeFile
    models: tuple[str, ...]
    base: str | None
    shared: Mapping[str, Profile]
    own: Sequence[Mapping[str, Profile]]
    places: Mapping[str, ValuePath]

    @property
    def experts(self) -> tuple[str, ...]:
        """The models without the base."""
        return tuple(model for model in self.models if model != self.base)

    def refuse(self, name: str, what: str) -> ValueError:
        """Return the error of a parameter that a spec cannot hold; `what` says how it is set."""
        return self.recipe.error(self.places.get(name, (name,)), f"{what}: {_CAN}")

    def one(self, name: str) -> Value:
        """Return a parameter of all models that is the same at all depths."""
        return self._constant(name, self.shared[name])

    def same(self, name: str) -> Value:
        """Return a parameter that is the same for all experts at all depths."""
        values = [own[name] for own in self.own if name in own]
        if any(value != values[0] for value in values):
            raise self.refuse(name, "differs from model to model")
        return self._constant(name, values[0])

    def _constant(self, name: str, profile: Profile) -> Value:
        if any(value != profile[0] for value in profile):
            raise self.refuse(name, "differs from layer to layer")
        return profile[0]

    @property
    def weights(self) -> tuple[tuple[float, ...], Profile]:
        """Weights of the models that have one, and the profile that multiplies all of them."""
        given = [own["weight"] for own in self.own if "weight" in own]
        count = max(map(len, given))
        if count == 1:
            return tuple(weight[0] for weight in given), (1.0,)
        wide = [weight * count if len(weight) == 1 else weight for weight in given]
        if any(len(weight) != count for weight in wide):
            raise self.refuse("weight", "lists of different lengths")
        profile = next((weight for weight in wide if any(weight)), (1.0,) * count)
        peak = max(range(count), key=lambda place: abs(profile[place]))
        factors = [short(weight[peak] / profile[peak]) for weight in wide]
        for weight, factor in zip(wide, factors, strict=True):
            if any(abs(w - factor * p) > SAME for w, p in zip(weight, profile, strict=True)):
                raise self.refuse("weight", "differs from layer to layer, and not in the same way for all models")
        return tuple(factors), profile


def given_parameters(schedule: Schedule) -> GivenParameters:
    """Read the parameters of a recipe.

    Raises:
        SpecError: if they differ by more than depth and model, or one that is required is missing.
    """
    recipe = schedule.recipe
    if len(recipe.slices) > 1:
        raise recipe.error(("slices",), f"differs from layer to layer: {_CAN}")
    at, part = recipe.slices[0]
    base = part.base_model or recipe.config.base_model
    reader, scopes = _Profiles(recipe), schedule.scopes[0]
    fields = method_fields(recipe)
    shared = {n: reader.read(scopes.shared.get(n, ()), f, at) for n, f in fields.items() if f.scope == "all"}
    own = []
    for place, settings in enumerate(scopes.models):
        is_base, where = part.sources[place].model == base, recipe.source_path(at, place)
        mine = [f for f in fields.values() if f.scope == "models" or (f.scope == "experts" and not is_base)]
        own.append({f.name: reader.read(settings.get(f.name, ()), f, where) for f in mine})
    models = tuple(source.model for source in part.sources)
    return GivenParameters(recipe, models, base, shared, own, reader.places)


@dataclass(slots=True)
class _Profiles:
    """Reads settings that hold for all tensors."""

    recipe: RecipeFile
    places: dict[str, ValuePath] = field(default_factory=dict)
    """Parameter -> the first place that sets it."""

    def read(self, settings: Sequence[Setting], parameter: Field, where: ValuePath) -> Profile:
        if not settings:
            if parameter.default is None:
                raise self.recipe.error((*where, "parameters", parameter.name), "is required, and nothing gives it")
            return (parameter.default,)
        self.places.setdefault(parameter.name, settings[0].at)
        condition = settings[0].conditions[0]
        if condition.filter not in (None, "*"):
            raise self.recipe.error(settings[0].at, f"differs by the names of tensors: {_CAN}")
        return condition.values


def short(value: float) -> float:
    """Remove the last digits, which are rounding."""
    return float(f"{value:.12g}")

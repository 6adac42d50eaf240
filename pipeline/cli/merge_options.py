"""The values of the options of `lines merge`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cli.common import named_values
from pipeline.merging.components import FACTOR, component_params
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Method
from pipeline.merging.scaling import LAMBDA_OUTSIDE, split_control
from pipeline.merging.steps import STEPS
from pipeline.parameters import look_up
from pipeline.recipe import AUTO, ParamValue
from tasks.registry import near


def output_path(text: str, overwrite: bool) -> Path:
    """Return the file or folder that --output names.

    Raises:
        ValueError: if it is neither a .safetensors file nor a folder, or may not be written.
    """
    from pipeline.checkpoints.model_folder import is_merged_folder

    output, folder = Path(text), text.endswith(("/", os.sep))
    if not folder and output.suffix != ".safetensors":
        raise ValueError(f"--output: must end in .safetensors, or in / for a folder, got {text}")
    if folder and output.suffix == ".safetensors":
        raise ValueError(f"--output: a folder must not be called .safetensors, got {text}")
    if output.exists() and not overwrite:
        raise ValueError(f"--output: {output} exists; choose another name, or give --overwrite")
    if output.exists() and output.is_dir() != folder:
        raise ValueError(f"--output: {output} is {'a file' if folder else 'a folder'}; choose another name")
    if folder and output.is_dir() and not is_merged_folder(output):
        raise ValueError(f"--output: {output} holds no merged model, so it is not replaced; choose another name")
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent}; create it")
    return output


def parsed_alpha(text: str | None, method: Method) -> float | str:
    """Return the value of --alpha; None gives the method's default.

    Raises:
        ValueError: if it is neither a number nor a word for equation 2.
    """
    if text is None:
        return 1 if method.whole else AUTO["l1"]
    if text in AUTO.values():
        return text
    try:
        return float(text)
    except ValueError:
        words = ", ".join(AUTO.values())
        raise ValueError(
            f"--alpha: must be a number or one of {words}, got {text!r}; {near(text, AUTO.values())}"
        ) from None


def parsed_params(method: str, scaling: str, texts: Sequence[str]) -> dict[str, ParamValue]:
    """Return the values of --param.

    Raises:
        ValueError: if neither the method nor the scaling has the parameter, or the value does not fit it.
    """
    of_scaling = (*split_control(scaling)[1].parameters, LAMBDA_OUTSIDE)
    declared = {p.name: p for p in (*METHODS[method].parameters, *of_scaling)}
    values = {}
    for name, value in named_values("--param", texts):
        if name == "samples" and METHODS[method].needs:
            raise ValueError("--param samples: is an option of `lines statistics`; leave it out here")
        parameter = look_up(declared, name, f"--param of {method} and {scaling}")
        values[name] = replace(parameter, name=f"--param {name}").parse(value)
    return values


def parsed_step(text: str) -> tuple[str, dict[str, ParamValue]]:
    """Return the step that a --then names, and its parameters.

    Raises:
        ValueError: if there is no such step or parameter, or a value does not fit it.
    """
    name, _, given = text.partition(":")
    option = f"--then {name}"
    declared = {p.name: p for p in look_up(STEPS, name, "--then").parameters}
    pairs = _each_once(option, "NAME=VALUE", given.split(",") if given else ())
    parameters = {key: look_up(declared, key, option) for key in pairs}
    return name, {key: replace(p, name=f"{option}: {key}").parse(pairs[key]) for key, p in parameters.items()}


def parsed_components(factors: Sequence[str], patterns: Sequence[str]) -> dict[str, ParamValue]:
    """Return the parameters of a recipe that --component and --pattern give.

    Raises:
        ValueError: if a name is given twice, or a value is no factor or pattern.
    """
    given, named = _each_once("--component", "NAME=FACTOR", factors), _each_once("--pattern", "NAME=REGEX", patterns)
    parsed = {name: replace(FACTOR, name=f"--component {name}").parse(value) for name, value in given.items()}
    return component_params(parsed, named)


def _each_once(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    from pipeline.spec.values import repeated  # pydantic: not for `lines --help`

    pairs = named_values(option, texts, form)
    if twice := repeated(name for name, _ in pairs):
        raise ValueError(f"{option} {twice[0]}: may be given once")
    return dict(pairs)

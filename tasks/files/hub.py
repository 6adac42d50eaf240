"""Whether the Hugging Face hub answers, asked once a process: its own client tries for half a minute a file."""

from functools import cache

from huggingface_hub import constants, get_session

_SECONDS = 5


def hub_silence() -> str | None:
    """Return why the hub gives no answer; None if it gives one, even a refusal."""
    return _silence(constants.ENDPOINT, constants.HF_HUB_OFFLINE)


def out_of_reach() -> str:
    """Return the reason and the remedy for files that are only on the hub, while it gives no answer."""
    why = f"the hub is out of reach ({hub_silence()})"
    return f"{why}: name a file, or copy a cache from where `lines prepare` reaches it to {constants.HF_HOME}"


@cache
def _silence(endpoint: str, offline: bool) -> str | None:
    if offline:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(endpoint, timeout=_SECONDS)
    except Exception as error:  # the client's own kinds differ between versions of huggingface_hub
        return f"{endpoint}: {' '.join(str(error).split()) or type(error).__name__}"
    return None

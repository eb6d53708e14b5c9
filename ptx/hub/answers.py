"""What the Hub answers when it refuses, as a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from ptx.errors import UserError

Kind = Literal["model", "dataset", "space"]
PAGES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@contextmanager
def explained(
    name: str, kind: Kind = "model", again: str = "Run the same command again"
) -> Iterator[None]:
    """Turns errors of the Hub's clients into a UserError.

    again: what loses nothing when it is tried once more.
    """
    from huggingface_hub.errors import HFValidationError, HTTPError, IncompleteSnapshotError

    try:
        yield
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"{name!r} is no name of the Hub: write it as user/name") from None
    except IncompleteSnapshotError:
        raise UserError(
            f"{name} is only partly in the cache, and the Hub cannot be reached. {again} with a "
            "network."
        ) from None
    except (HTTPError, OSError, RuntimeError) as error:  # the clients wrap each other's errors
        raise UserError(sentence(name, kind, again, error)) from error


def sentence(name: str, kind: Kind, again: str, error: BaseException) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    page = f"https://huggingface.co/{PAGES[kind]}{name}"
    for cause in causes(error):
        if isinstance(cause, GatedRepoError):
            return (
                f"{name} is gated: accept its licence at {page}, then log in with "
                "`hf auth login` (or set HF_TOKEN)."
            )
        if isinstance(cause, HfHubHTTPError):
            return _by_status(name, kind, again, page, cause)
    if any(isinstance(c, LocalEntryNotFoundError | OfflineModeIsEnabled) for c in causes(error)):
        return (
            f"{name} is not in the cache, and the Hub cannot be reached or may not be asked "
            f"(HF_HUB_OFFLINE, local_files_only): is the network up? {again} with it."
        )
    return f"{name} cannot be read ({type(error).__name__}: {error}): is the network up? {again}."


def _by_status(name: str, kind: Kind, again: str, page: str, error: BaseException) -> str:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else 0
    writing = response is not None and response.request.method in ("POST", "PUT", "DELETE")
    if status == 401:
        return (
            f"The Hub does not show {name} to you (401): check the name; if it is private "
            "or gated, log in with `hf auth login` (or set HF_TOKEN)."
        )
    if status == 403 and writing:
        return (
            f"Your token may not write to {name} (403): use a name of your own, and a token with "
            "write access (https://huggingface.co/settings/tokens)."
        )
    if status == 403:
        return (
            f"Your token may not read {name} (403): accept its licence at {page}, or use "
            "a token with read access."
        )
    if status in (404, 410):
        return f"{name} has no such {kind}, commit or file any more (404): see {page}."
    if status in (409, 412):
        return f"{name} was changed by someone else meanwhile ({status}). {again}."
    if status == 429:
        return f"The Hub asks for a pause (429, too many requests). {again} in some minutes."
    return f"The Hub answered {status} for {name}. {again} later."


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

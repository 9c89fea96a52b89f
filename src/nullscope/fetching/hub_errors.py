"""Errors of the hub's client and of the disk, told in one sentence: what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nullscope.fetching.checks import disk_failure
from nullscope.fetching.sources import AGAIN, FetchError, Source


@contextmanager
def explained(source: Source, revision: str | None) -> Iterator[None]:
    """Raise `FetchError` in place of what the client or the disk raises."""
    try:
        yield
    except FetchError:
        raise
    except Exception as error:  # the client has a dozen kinds, from a bad name to a broken connection
        raise FetchError(_explain(source.repository or "", revision or "main", error)) from error


def _explain(repository: str, revision: str, error: Exception) -> str:
    from huggingface_hub import errors, get_token

    status = getattr(getattr(error, "response", None), "status_code", None)
    with_token = f"with the token given, found {status}" if get_token() else f"without a token, found {status}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository}: expected the revision {revision}, found none; take the newest with --revision main"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return (
            f"{repository}: expected access {with_token}: the data set is gated; accept its terms on its page, then set HF_TOKEN "
            "to a token of that account"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return (
            f"{repository}: expected a data set of this name {with_token}: it is private, was moved or removed; look for its "
            "page, and set HF_TOKEN if it asks for an account"
        )
    if status == 404:
        return f"{repository}@{revision}: expected what the hub had listed, found 404: the files are being changed; {AGAIN}"
    if status is not None:
        return f"{repository}: expected an answer of the hub, found {status}: it is busy or out of order; in a while, {AGAIN}"
    if told := disk_failure(error, repository):
        return told
    first = (str(error).splitlines() or [""])[0]
    return (
        f"{repository}: expected a connection to the hub, found none or one that broke ({type(error).__name__}: {first}); look "
        f"at the network and at HF_ENDPOINT, then {AGAIN}"
    )

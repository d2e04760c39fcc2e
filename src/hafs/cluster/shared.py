"""One object that all workers of a crew ask: it lives beside the command and ends with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hafs.errors import HafsError


@dataclass(frozen=True)
class Shared:
    """A handle on the object; it can be sent to workers."""

    actor: Any

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the object returns; raises the HafsError that it raises, and HafsError when it is gone."""
        import ray

        try:
            return await getattr(self.actor, method).remote(*arguments)
        except ray.exceptions.RayTaskError as e:
            raise _reason(e) from e
        except ray.exceptions.RayActorError as e:
            raise HafsError(
                "the command that this work belongs to has ended, or the machine that it keeps its budget on",
                "the same command again: it goes on from here",
            ) from e

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of the object without waiting."""
        getattr(self.actor, method).remote(*arguments)


def _reason(error: Any) -> Exception:
    cause: Exception = error.cause
    return cause if isinstance(cause, HafsError) else error


def worker_id() -> str:
    """Which worker this process is, as a crew names those that died."""
    import ray

    return str(ray.get_runtime_context().get_actor_id())

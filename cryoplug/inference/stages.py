"""Three threads in a row: one reads, the caller's thread computes, one writes. An error or a stop in any of them ends all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cryoplug.inference.messages import Message
from cryoplug.machine.channel import Channel, Closed
from cryoplug.machine.devices import Interrupted

Item = TypeVar("Item")


def run_stages(
    read: Callable[[Channel[Item]], None],
    compute: Callable[[Iterable[Item]], Iterator[Message]],
    write: Callable[[Channel[Message]], bool],
    *,
    capacity: tuple[int, int],
    should_stop: Callable[[], bool],
    gave_up: Callable[[], None],
) -> bool:
    """Run the three stages until everything is read and written.

    Parameters
    ----------
    read
        Puts items into a channel, and closes it.
    compute
        Computes the items to write from these, in order.
    write
        Writes until its channel ends; returns whether it came to the end.
    capacity
        Most items that wait between reading and computing, and between computing and writing.
    should_stop
        Called before each item; True ends the work.
    gave_up
        Called from any thread when an error ends the work; a reader that waits for more work should then end.

    Returns
    -------
    bool
        Whether everything was done; False if `should_stop` ended it.
    """
    incoming: Channel[Item] = Channel(capacity[0])
    outgoing: Channel[Message] = Channel(capacity[1])

    @contextlib.contextmanager
    def errors_end_all() -> Iterator[None]:
        try:
            yield
        except (Closed, Interrupted):
            pass  # another thread gave up, its own error is raised; or a stop was asked for
        except BaseException:
            gave_up()
            incoming.abort()
            raise

    def reading() -> None:
        with errors_end_all():
            read(incoming)

    def writing() -> bool:
        with errors_end_all():
            return write(outgoing)
        return False

    with ThreadPoolExecutor(2, thread_name_prefix="cryoplug-files") as threads:
        reader, writer = threads.submit(reading), threads.submit(writing)
        try:
            with errors_end_all():
                for message in compute(incoming.messages(should_stop)):
                    outgoing.put(message)
                if not should_stop() and not incoming.aborted:
                    outgoing.close()
        finally:
            incoming.abort()
            outgoing.abort()
        complete = writer.result()
        reader.result()
    return complete

"""`Groups`: joining and leaving groups of the channel layer, and lost channels."""

from __future__ import annotations

import asyncio

import pytest

from zndraw_joblib.events import groups as module
from zndraw_joblib.events.groups import Groups


class Layer:
    """A channel layer that blocks joining and leaving while `gate` is not set."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.channels = 0
        self.members = set()
        self.broken = asyncio.Event()

    async def new_channel(self):
        self.channels += 1
        return f"channel-{self.channels}"

    async def receive(self, channel):
        await self.broken.wait()
        self.broken.clear()
        raise ConnectionError("the layer is down")

    async def group_add(self, group, channel):
        await self.gate.wait()
        self.members.add((group, channel))

    async def group_discard(self, group, channel):
        await self.gate.wait()
        self.members.discard((group, channel))


@pytest.fixture
async def layer(monkeypatch):
    """The channel layer that `Groups` uses."""
    layer = Layer()
    monkeypatch.setattr(module, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    return layer


@pytest.fixture
async def groups(layer):
    """A `Groups` with a channel; its tasks are cancelled at the end."""
    groups = Groups(print)
    await asyncio.sleep(0.01)
    yield groups
    for task in groups._tasks:
        task.cancel()


async def test_a_group_is_joined_for_its_first_member_and_left_after_its_last(layer, groups):
    await groups.join({"a", "b"})
    await groups.join({"a"})
    assert layer.members == {("a", "channel-1"), ("b", "channel-1")}
    groups.leave({"a", "b"})
    await asyncio.sleep(0.01)
    assert layer.members == {("a", "channel-1")}
    groups.leave({"a"})
    await asyncio.sleep(0.01)
    assert layer.members == set()


async def test_a_group_that_is_left_during_its_join_is_left_after_it(layer, groups):
    layer.gate.clear()
    joining = asyncio.create_task(groups.join({"a"}))
    await asyncio.sleep(0.01)
    groups.leave({"a"})
    layer.gate.set()
    await joining
    await asyncio.sleep(0.01)
    assert layer.members == set()


async def test_a_cancelled_join_still_counts_its_member_until_it_leaves(layer, groups):
    layer.gate.clear()
    joining = asyncio.create_task(groups.join({"a"}))
    await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait([joining])
    groups.leave({"a"})
    layer.gate.set()
    await groups.join({"a"})
    assert ("a", "channel-1") in layer.members


async def test_a_slow_join_of_a_lost_channel_does_not_count_for_the_next(layer, groups):
    """Control: with one set of joined groups for all channels the group is never joined."""
    layer.gate.clear()
    joining = asyncio.create_task(groups.join({"a"}))
    await asyncio.sleep(0.01)
    layer.broken.set()
    while layer.channels < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    layer.gate.set()
    await joining
    await asyncio.sleep(0.2)
    assert ("a", "channel-2") in layer.members


async def test_a_layer_that_hangs_delays_a_join_by_a_second_at_most(layer, groups):
    layer.gate.clear()
    async with asyncio.timeout(3):
        await groups.join({"a", "b", "c"})
    layer.gate.set()


@pytest.mark.parametrize("method", ["new_channel", "receive"])
@pytest.mark.parametrize("error", [None, ConnectionError("the layer is down")])
async def test_a_layer_that_swallows_a_cancel_does_not_keep_the_task_alive(layer, method, error):
    """The pub/sub layer did so while it connected to Redis, when the machine was busy.

    Control: without the look at `cancelling` the task waited for a message, and the end of the
    event loop for the task, forever.
    """

    async def swallow(*args):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error:
                raise error from None
        return "channel-1" if method == "new_channel" else {}

    setattr(layer, method, swallow)
    receiving, retrying = Groups(print)._tasks
    await asyncio.sleep(0.01)
    receiving.cancel()
    retrying.cancel()
    ended, _ = await asyncio.wait([receiving], timeout=1)
    # From here on a task that still receives can be cancelled, and ends with this test's loop.
    delattr(layer, method)
    receiving.cancel()
    await asyncio.sleep(0.01)
    assert ended

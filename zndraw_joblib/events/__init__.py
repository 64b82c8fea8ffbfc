"""Events between processes: a change is published after its commit and wakes the waiters.

The way of an event: `receivers` turns the signal of a change into `messages`, `publisher` sends
these over the channel layer, `groups` receives them in each process that waits, and `ends` and
`work` wake the waiters. A message contains no state. A waiter reads the database when it is woken,
and each `hub` reads it every few seconds, because a message may be lost.
"""

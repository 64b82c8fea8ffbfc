"""Events between processes: a change is published after its commit and wakes the waiters.

One way through the package: `receivers` turns the signal of a change into `messages`, `publisher`
hands them to the channel layer, `groups` receives them in each process that waits, and `ends` and
`work` wake the waiters. A message only says where to look: waiters read the database, and each
`hub` reads it again every few seconds, so a lost message costs time, never an answer.
"""

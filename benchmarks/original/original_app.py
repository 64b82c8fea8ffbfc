"""The FastAPI original as a site without authentication.

Runs in an environment of its own, in which `zndraw_joblib` is the original's package:
``uvicorn original_app:app`` serves, ``python original_app.py N`` creates the tables, the only user,
N jobs and a task. DATABASE_URL is in SQLAlchemy's form.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from zndraw_auth import (
    AuthSettings,
    Base,
    User,
    create_engine_for_url,
    current_active_user,
    current_superuser,
    current_user_scoped_session,
)

from zndraw_joblib import (
    Job,
    JobLibSettings,
    ProblemException,
    Task,
    problem_exception_handler,
    router,
)

URL = os.environ["DATABASE_URL"]
USER_ID = uuid.UUID(int=1)

# The engine that zndraw_auth creates, with sessions as in the original's README.
engine = create_engine_for_url(URL)
plain_sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


def user() -> User:
    """The only user, a superuser; no query is made for it."""
    return User(
        id=USER_ID,
        email="bench@example.com",
        hashed_password="",
        is_active=True,
        is_superuser=True,
        is_verified=True,
    )


def session_maker():
    """The session factory; SESSION_LOCK serializes sessions, which its README asks for SQLite."""
    if not os.environ.get("SESSION_LOCK"):
        return plain_sessions
    lock = asyncio.Lock()

    @asynccontextmanager
    async def locked() -> AsyncIterator[AsyncSession]:
        async with lock, plain_sessions() as session:
            yield session

    return locked


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.engine = engine
    app.state.session_maker = session_maker()
    app.state.auth_settings = AuthSettings()
    app.state.joblib_settings = JobLibSettings()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_exception_handler(ProblemException, problem_exception_handler)
app.include_router(router)
for dependency in (current_active_user, current_superuser, current_user_scoped_session):
    app.dependency_overrides[dependency] = user


async def prepare(jobs: int) -> None:
    """Create the tables, the user, the jobs and one task."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with plain_sessions() as session:
        session.add(user())
        await session.flush()
        created = [
            Job(room_id="bench", category="analysis", name=f"Job{number:03}", schema_={})
            for number in range(jobs)
        ]
        session.add_all(created)
        await session.flush()
        # The task that `benchmarks.fill` copies.
        session.add(Task(job_id=created[0].id, room_id="bench", created_by_id=USER_ID, payload={}))
        await session.commit()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(prepare(int(sys.argv[1])))

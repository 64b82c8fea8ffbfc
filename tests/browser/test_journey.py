from __future__ import annotations

from playwright.sync_api import Page, expect


def test_the_room_page_opens(page: Page, room: str) -> None:
    page.goto(f"/rooms/{room}/")
    expect(page.get_by_role("heading", level=1)).to_have_text(room)

"""Documents in the admin."""

from __future__ import annotations

from django.contrib import admin

from example_project.rooms.models import Document


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):
    """Documents by room."""

    list_display = ("name", "room_id", "updated_at")
    search_fields = ("room_id", "name")

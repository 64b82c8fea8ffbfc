"""Texts of the page's modules, by the keys under which they ask for them."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

#: Texts of `room.js`, `jobs.js`, `form.js` and the modules that they import.
JOB_TEXTS = {
    "jobs.none": _("No worker has registered a job for this room yet."),
}

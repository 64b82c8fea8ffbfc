"""Writes the AsyncAPI document of the WebSockets."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand

from zndraw_joblib.api.asyncapi import asyncapi_document


class Command(BaseCommand):
    """``manage.py asyncapi [--file FILE]``."""

    help = "Write the AsyncAPI document of the job server's WebSockets, as YAML."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """``--file``."""
        parser.add_argument("--file", help="a file to write to, instead of the standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the document."""
        text = yaml.safe_dump(asyncapi_document(), sort_keys=False, width=100)
        if options["file"]:
            Path(options["file"]).write_text(text, "utf-8")
        else:
            self.stdout.write(text)

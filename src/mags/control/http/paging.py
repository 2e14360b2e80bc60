"""Lists that come whole unless a page of them is asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

LONGEST_PAGE = 10_000
"""Rows; also of a list that is asked for without `page_size`."""

Page = Annotated[int, Query(ge=1, le=1_000_000, description="From 1 on.")]
PageSize = Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="Rows on a page.")]

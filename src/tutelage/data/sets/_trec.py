"""TREC's files: documents and topics between tags, without a root element."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.data._text import read_bytes
from tutelage.errors import UserError

MAX_SIZE = 2**32
COMMENT_TAGS = re.compile(r"</?[A-Za-z][^<>]{0,80}>")


@dataclass(frozen=True)
class TrecDocument:
    """One document: id, title, text."""

    identifier: str
    title: str
    text: str


def read_trec_documents(path: Path, fix: str) -> list[TrecDocument]:
    """Return the documents of a file: <doc> with <docno>, and perhaps <title> and <text>.

    Raises:
        UserError: If there is none, or one has no number or no end.
    """
    documents = []
    for number, block in enumerate(_blocks(path, "doc", fix), 1):
        identifier = _field(block, "docno")
        if not identifier:
            raise UserError(f"{path}: the document {number} of it has no <docno>; {fix}")
        documents.append(TrecDocument(identifier, _field(block, "title"), _field(block, "text")))
    if not documents:
        raise UserError(f"{path} holds no document between <doc> and </doc>; {fix}")
    return documents


def read_trec_topics(path: Path, fix: str) -> list[tuple[str, str]]:
    """Return (number, title) of the topics of a file, in its order.

    A title may end without a tag, as in TREC's own files.

    Raises:
        UserError: If there is none, or one has no number, no title or no end.
    """
    topics = []
    for position, block in enumerate(_blocks(path, "top", fix), 1):
        number = _field(block, "num").removeprefix("Number:").strip()
        title = _field(block, "title").removeprefix("Topic:").strip()
        if not number or not title:
            raise UserError(f"{path}: the topic {position} of it has no <num> or no <title>; {fix}")
        topics.append((number, title))
    if not topics:
        raise UserError(f"{path} holds no topic between <top> and </top>; {fix}")
    return topics


def _text(path: Path, fix: str) -> str:
    content = read_bytes(path, MAX_SIZE, fix)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _blocks(path: Path, tag: str, fix: str) -> Sequence[str]:
    """Return what stands between each pair of tags; one without an end would swallow the next."""
    text = _text(path, fix)
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    begun = len(re.findall(rf"<{tag}>", text, re.IGNORECASE))
    if begun != len(blocks):
        raise UserError(
            f"{path} has {begun} times <{tag}>, but {len(blocks)} of them end with </{tag}> before "
            f"the next; the file is cut off or damaged: {fix}"
        )
    return blocks


def _field(block: str, tag: str) -> str:
    """Return what stands between a tag and its end, or the next tag if it has no end."""
    match = re.search(rf"<{tag}>(.*?)</{tag}>", block, re.DOTALL | re.IGNORECASE)
    if match is None:
        match = re.search(rf"<{tag}>([^<]*)", block, re.IGNORECASE)
    content = "" if match is None else match[1]
    return html.unescape(COMMENT_TAGS.sub(" ", content)).strip()

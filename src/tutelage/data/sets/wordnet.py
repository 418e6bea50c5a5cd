"""WordNet: an example sentence is a query, the sense that it shows is its document."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.collection import Collection, Judgments
from tutelage.data._files import require_folder
from tutelage.data._text import read_lines
from tutelage.data.generated_queries import Documents, Generator
from tutelage.data.retrieval_data import JudgedQueries, RetrievalContents, RetrievalData
from tutelage.errors import UserError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
ADVICE = "apt-get install wordnet-base, or set data.root to a folder with data.noun and the others"
EXAMPLE = re.compile(r'"([^"]+)"')
FEWEST_WORDS = 3


@dataclass(frozen=True)
class Sense:
    """One sense: its words, its definition, and sentences that show it."""

    identifier: str
    words: str
    definition: str
    examples: Sequence[str]


class WordNet(RetrievalData):
    """Senses of WordNet 3.0 that have example sentences, split by sense.

    The judgments are not those of readers: lexicographers wrote each sentence to show the sense
    that it stands with, and other senses may fit it, too. G. A. Miller, "WordNet", Communications
    of the ACM 1995.

    Args:
        root: folder of data.noun and the others.
        size: number of senses, drawn at random; they are the corpus.
        test: share of the senses whose sentences are for testing; as many are for validation.
        generated: generators of further queries, made of definitions; `title` is the words.
        documents_per_query: documents of a training query in a batch.
        seed: draws the senses and the parts.
    """

    def __init__(
        self,
        root: str = "/usr/share/wordnet",
        size: int = 4000,
        test: float = 0.2,
        generated: Sequence[Generator] = ("first_sentence",),
        documents_per_query: int = 1,
        seed: int = 0,
    ) -> None:
        self.root = root
        self.size = size
        self.test = test
        self.generated = generated
        self.documents_per_query = documents_per_query
        self.seed = seed

    def read(self) -> RetrievalContents:
        """Read the files and draw senses.

        Raises:
            UserError: If a file is missing, or there are fewer senses with examples than `size`.
        """
        root = require_folder(self.root, "WordNet", ADVICE)
        senses = [sense for name in FILES for sense in _senses(root / name) if sense.examples]
        if not 10 <= self.size <= len(senses) or not 0 < self.test < 0.5:
            raise UserError(
                f"data.size is 10 to {len(senses)} senses, and data.test a share below 0.5, got "
                f"{self.size} and {self.test}"
            )
        draw = random.Random(self.seed)
        chosen = draw.sample(senses, self.size)
        ids = [sense.identifier for sense in chosen]
        texts = [f"{sense.words}: {sense.definition}" for sense in chosen]
        held_out = round(self.test * self.size)
        cuts = {
            "test": range(0, held_out),
            "validation": range(held_out, 2 * held_out),
            "train": range(2 * held_out, self.size),
        }
        parts = {name: _part(name, chosen, rows) for name, rows in cuts.items()}
        titles = [sense.words for sense in chosen]
        definitions = [f"{sense.definition}." for sense in chosen]
        return RetrievalContents(
            corpus=Collection("documents", ids, texts),
            documents=Documents(ids, titles, definitions),
            parts=parts,
        )


def _part(name: str, senses: Sequence[Sense], rows: range) -> JudgedQueries:
    ids: list[str] = []
    texts: list[str] = []
    triples: list[tuple[int, int, int]] = []
    for row in rows:
        for number, example in enumerate(senses[row].examples):
            triples.append((len(ids), row, 1))
            ids.append(f"{senses[row].identifier}-{number}")
            texts.append(example)
    return JudgedQueries(Collection(name, ids, texts), Judgments.of(triples))


def _senses(path: Path) -> Iterator[Sense]:
    """Give the senses of a file, as wndb(5WN) describes it."""
    kind = path.suffix.removeprefix(".")
    for line in read_lines(path, ADVICE):
        facts, bar, gloss = line.partition(" | ")
        fields = facts.split()
        if not bar or len(fields) < 5 or not fields[0].isdecimal():  # the license at the top
            continue
        count = int(fields[3], 16)
        words = [word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        definition = EXAMPLE.sub("", gloss).strip(" ;")
        examples = [text.strip() for text in EXAMPLE.findall(gloss)]
        long = [text for text in examples if len(text.split()) >= FEWEST_WORDS]
        yield Sense(f"{kind}-{fields[0]}", ", ".join(words), definition, long)

"""Tiny text encoders and collections on disk, in the formats of real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tutelage.core.collection import Collection
from tutelage.models import DualEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = """
    lift drag wing plate shock wave heat flow jet rotor thin thick blunt slender hot cold steady
    smooth rough swept laminar turbulent the of a past in on and at high low speed layer pressure
""".split()  # noqa: SIM905
THEMES = [words.split() for words in (
    "lift wing swept slender", "heat plate hot blunt", "shock wave high speed",
    "jet flow turbulent cold", "rotor drag rough low", "laminar layer smooth thin",
)]  # fmt: skip


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """Write tokenizer.json of a WordPiece tokenizer in BERT's form."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces = [*SPECIAL, *words, *"abcdefghijklmnopqrstuvwxyz.-0123456789"[1:], *letters]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_word_vectors(folder: Path, width: int = 16, seed: int = 0) -> Path:
    """Write a tokenizer and word vectors, which is what `StaticEncoder` reads."""
    write_tokenizer(folder)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(size, width, generator=generator)
    save_file({"embeddings.word_embeddings.weight": vectors}, folder / "model.safetensors")
    return folder


def write_bert(folder: Path, width: int = 16, layers: int = 3, labels: int = 0) -> Path:
    """Write a small random BERT with its tokenizer; with labels, a classifier of pairs."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    write_tokenizer(folder)
    tokenizer = BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        num_labels=labels or 2,
    )
    kind = BertForSequenceClassification if labels else BertModel
    kind(config).save_pretrained(folder)
    return folder


def write_sentence_transformer(folder: Path, width: int = 16, layers: int = 3) -> Path:
    """Write a small random BERT with mean pooling and normalization."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain = write_bert(folder.with_name(folder.name + "-plain"), width, layers)
    modules = [Transformer(str(plain)), Pooling(width), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def documents(count: int = 24) -> list[dict[str, str]]:
    """Return documents in BEIR's form: some words of a theme, others in common."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number in range(count):
        theme = THEMES[number % len(THEMES)]
        draw = torch.randint(0, len(WORDS), (6,), generator=generator).tolist()
        common = [WORDS[index] for index in draw]
        title = f"{theme[0]} {theme[1]} {common[0]}"
        text = f"the {theme[1]} of a {theme[2]} {common[1]}. {' '.join(common[2:])} {theme[3]}."
        made.append({"_id": f"d{number}", "title": title, "text": text})
    return made


def write_beir(root: Path, train: bool = True, count: int = 24) -> Path:
    """Write a folder of BEIR whose queries are words of a document's theme."""
    entries = documents(count)
    queries = []
    qrels: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for number, entry in enumerate(entries):
        theme = THEMES[number % len(THEMES)]
        for copy, part in enumerate(("train", "train", "dev", "test")):
            name = f"q{number}-{copy}"
            text = f"{theme[copy]} {entry['title'].split()[2]} {theme[(copy + 1) % 4]}"
            if train or part == "test":
                queries.append({"_id": name, "text": text})
            qrels[part].append(f"{name}\t{entry['_id']}\t1")
    write_lines(root / "corpus.jsonl", map(json.dumps, entries))
    write_lines(root / "queries.jsonl", map(json.dumps, queries))
    for part in ("train", "dev", "test") if train else ("test",):
        lines = ["query-id\tcorpus-id\tscore", *qrels[part]]
        write_lines(root / "qrels" / f"{part}.tsv", lines)
    return root


def write_lines(path: Path, lines: Any) -> Path:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


class TableEncoder(DualEncoder):
    """Vectors of texts from a table, without a tokenizer; counts what it is asked for."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], normalized: bool = False) -> None:
        super().__init__()
        self.vectors = dict(vectors)
        self.dim = len(next(iter(self.vectors.values())))
        self.normalized = normalized
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.asked: list[str] = []

    def embed(self, items: Any, role: str) -> Tensor:
        self.asked += list(items)
        return self.scale * torch.tensor([self.vectors[item] for item in items])

    def fingerprint(self) -> dict[str, Any]:
        return {"table": sorted(self.vectors.items())}


def collection(name: str, count: int, width: int = 4, seed: int = 0) -> tuple[Collection, Any]:
    """Return a collection of texts and a `TableEncoder` of them."""
    generator = torch.Generator().manual_seed(seed)
    texts = [f"{name} {'x' * (number % 7)} {number}" for number in range(count)]
    vectors = torch.randn(count, width, generator=generator).tolist()
    table = dict(zip(texts, vectors, strict=True))
    return Collection(name, [f"{name}{n}" for n in range(count)], texts), TableEncoder(table)

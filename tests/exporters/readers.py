"""Reads an export with the library it is for: ``python readers.py TARGET FOLDER [FOLDER]``.

Prints a list of rows as JSON; of megatron with a second folder also the losses of a model that
trained on that one. In a process of its own, as these libraries are heavy and full of warnings.
"""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path

warnings.simplefilter("ignore")


def read_parquet(folder: str) -> list:
    import pyarrow.dataset

    rows = []
    for batch in pyarrow.dataset.dataset(
        folder, format="parquet", exclude_invalid_files=True
    ).to_batches():
        rows += [_row(row) for row in batch.to_pylist()]
    return rows


def read_hf(folder: str) -> list:
    import datasets

    datasets.disable_progress_bars()
    stream = datasets.load_dataset(folder, split="train", streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    return [_row(row) for row in stream]


def read_megatron(folder: str) -> list:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(f"{folder}/tokens", multimodal=False)
    assert dataset.document_indices.tolist() == list(range(len(dataset) + 1))
    lines = Path(folder, "tokens.jsonl").read_text().splitlines()
    return [_line(tokens, line) for tokens, line in zip(dataset, lines, strict=True)]


def read_litdata(folder: str) -> list:
    import litdata

    if Path(folder, "items.jsonl").exists():
        loader = litdata.TokensLoader(block_size=4)
        stream = litdata.StreamingDataset(folder, item_loader=loader)
        return [block.tolist() for block in stream]
    rows = []
    for item in litdata.StreamingDataset(folder):
        array = item["codes"]
        row = {**item, "codes": array.reshape(-1).tolist(), "shape": list(array.shape)}
        rows.append(_row(row))
    return rows


def read_mds(folder: str) -> list:
    # Its sets of photos want torchvision; these are not read here.
    sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")
    from streaming import LocalDataset

    dataset = LocalDataset(folder)
    rows = []
    for i in range(len(dataset)):
        item = dict(dataset[i])
        name = "codes" if "codes" in item else "tokens"
        array = item[name]
        item |= {name: array.reshape(-1).tolist(), "shape": list(array.shape)}
        rows.append(_row({**item, "meta": json.dumps(item["meta"])}))
    return rows


def read_webdataset(folder: str) -> list:
    import webdataset

    shards = sorted(map(str, Path(folder).glob("*.tar")))
    rows = []
    for item in webdataset.WebDataset(shards, shardshuffle=False).decode():
        (array,) = (value for key, value in item.items() if key.endswith(".npy"))
        source = item["json"].get("source", "")
        rows.append([int(item["__key__"]), source, array.reshape(-1).tolist(), list(array.shape),
                     item["json"]])  # fmt: skip
    return rows


def read_npy(folder: str) -> list:
    import numpy as np

    rows = []
    for text in Path(folder, "samples.jsonl").read_text().splitlines():
        line = json.loads(text)
        array = np.load(Path(folder, line.pop("file")), allow_pickle=False)
        index = line.pop("index")
        rows.append([index, line.get("source", ""), array.reshape(-1).tolist(), list(array.shape),
                     line])  # fmt: skip
    return rows


def train_megatron(folder: str) -> list:
    """Twenty steps of a small language model on what Megatron's GPT dataset gives."""
    import numpy as np
    import torch
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    torch.manual_seed(0)
    indexed = IndexedDataset(f"{folder}/tokens", multimodal=False)
    vocabulary = json.loads(Path(folder, "vqtok-export.json").read_text())["vocabulary_size"]
    tokenizer = types.SimpleNamespace(
        eod=vocabulary,
        pad=vocabulary,
        vocab_size=vocabulary + 1,
        unique_identifiers={"vocabulary": vocabulary},
    )
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=32,
        blend=([f"{folder}/tokens"], None),
        split="1,0,0",
        path_to_cache=f"{folder}/cache",
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    dataset = GPTDataset(
        indexed,
        f"{folder}/tokens",
        np.arange(len(indexed), dtype=np.int32),
        80,
        Split.train,
        config,
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    model = torch.nn.Sequential(
        torch.nn.Embedding(vocabulary + 1, 32), torch.nn.Linear(32, vocabulary + 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _, batch in zip(range(20), loader, strict=False):
        logits = model(batch["tokens"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _row(row: dict) -> list:
    name = "codes" if "codes" in row else "tokens"
    array = list(row[name])
    shape = row.get("shape") or [len(array)]
    return [int(row["index"]), row["source"], array, list(shape), json.loads(row["meta"])]


def _line(tokens, line: str) -> list:
    meta = json.loads(line)
    index = meta.pop("index")
    return [index, meta.get("source", ""), tokens.tolist(), [len(tokens)], meta]


READERS = {name[5:]: value for name, value in dict(globals()).items() if name.startswith("read_")}

if __name__ == "__main__":
    target, *folders = sys.argv[1:]
    found = READERS[target](folders[0])
    if folders[1:]:
        found = [found, train_megatron(folders[1])]
    print(json.dumps(found))

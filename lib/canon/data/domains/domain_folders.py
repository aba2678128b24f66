"""Sets of domains on the disk: a folder per domain (Office-31, Office-Home, PACS, VLCS), or a list of files each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from canon import named
from canon.data.domains.domain_sets import Domains
from canon.data.images.folder import Folder, folder
from canon.data.images.image_files import MAX_PIXELS, path_within
from canon.data.pipeline import splits
from canon.data.pipeline.source import Info
from canon.data.text import text_files
from canon.errors import CanonError, UsageError

_INNER = 'images'  # Office-31 as distributed: amazon/images/back_pack/frame_0001.jpg


def domain_folder(
    path: str,
    split: str = 'all',
    domains: Sequence[str] | None = None,
    unreadable: str = 'refuse',
    decode: bool = True,
    held_out: named.Probability = 0.2,
    partial: bool = False,
) -> Domains:
    """Reads `path/domain/class/image`, or `path/domain/images/class/image` as Office-31 is distributed.

    Args:
      path: the folder of the domains.
      split: 'all' (the whole domain, as adaptation benchmarks use it), 'train' or 'test', which divide each class by a
        hash of the file names (`canon.data.images.folder`); may be sliced. A domain with folders of splits has those.
      domains: names of the folders, in order; None for all, sorted.
      unreadable: as of `folder`.
      decode: as of `folder`.
      held_out: the share of each class that becomes 'test'.
      partial: as of `Domains`.

    Raises:
      UsageError: a folder is missing, or the domains differ in their classes.
      CanonError: a file cannot be read.
    """
    root = text_files.require_folder(path)
    known = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))
    chosen = _choose_domains(domains, known, str(root))
    read = {name: folder(str(_class_root(root / name)), split, unreadable, decode, held_out) for name in chosen}
    return Domains(read, partial)


def domain_lists(
    path: str,
    lists: Mapping[str, str | Sequence[str]],
    split: str = 'all',
    first_label: Annotated[int, named.Range(0)] = 0,
    class_names: Sequence[str] | None = None,
    decode: bool = True,
    partial: bool = False,
) -> Domains:
    """Reads domains from text files with a line `path label` per image, as Office's and PACS's splits are passed on.

    Args:
      path: the folder that the paths in the lists are relative to.
      lists: {domain: a list, or several that are joined}; a list is a file below `path`, or '{split}' in its name
        stands for the split: `dict(photo='splits/photo_{split}_kfold.txt')`.
      split: name that replaces '{split}'; a slice of it, such as 'train[:90%]', follows the order of the list.
      first_label: the label of the first class: 1 in the lists of PACS, otherwise 0.
      class_names: in the order of the labels; None numbers the classes.
      decode: if False, 'image' holds the bytes of the file.
      partial: as of `Domains`.

    Raises:
      UsageError: a list or an image is missing, or the domains differ in their classes.
      CanonError: a line is not a path and a label.
    """
    root = text_files.expand_path(path)
    if not lists:
        raise UsageError("lists is empty; give {domain: 'list.txt'}")
    base, first, last = splits.parse_split(split)
    read: dict[str, list[tuple[Path, int]]] = {}
    for domain, files in lists.items():
        names = [files] if isinstance(files, str) else list(files)
        rows = [row for name in names for row in _read_list(root, name.replace('{split}', base), first_label)]
        read[domain] = rows[splits.to_slice(first, last, len(rows))]
        if not read[domain]:
            raise UsageError(f'domain {domain!r}: {split!r} of {", ".join(names)} has no images')
    count = len(class_names) if class_names else 1 + max(label for rows in read.values() for _, label in rows)
    names = tuple(class_names) if class_names else None
    return Domains(
        {
            domain: Folder(rows, (), Info(domain, split, count, names, len(rows)), decode, MAX_PIXELS)
            for domain, rows in read.items()
        },
        partial,
    )


def _choose_domains(domains: Sequence[str] | None, known: Sequence[str], where: str) -> Sequence[str]:
    for name in domains or ():
        if name not in known:
            raise UsageError(f'{where} has no domain {name!r}{named.suggest(name, known)}')
    chosen = known if domains is None else list(domains)
    if not chosen:
        raise UsageError(f'{where} has no folders of domains')
    return chosen


def _class_root(domain: Path) -> Path:
    """Returns the folder of a domain's class folders: the domain's own, or its only folder if that is 'images'."""
    inner = [p.name for p in domain.iterdir() if p.is_dir() and not p.name.startswith('.')]
    return domain / _INNER if inner == [_INNER] else domain


def _read_list(root: Path, name: str, first_label: int) -> list[tuple[Path, int]]:
    rows = []
    for number, line in enumerate(text_files.read_lines(path_within(root, name, 'lists')), 1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(' ')  # from the right: Office-Home's 'Real World' has a space
        if not file or not label.lstrip('-').isdigit():
            raise CanonError(f"{root / name}, line {number}: expected 'path label', got {line.strip()!r}")
        if int(label) < first_label:
            raise CanonError(f'{root / name}, line {number}: label {label} is less than first_label={first_label}')
        image = path_within(root, file, f'{root / name}, line {number}')
        if not image.is_file():
            raise UsageError(f'{root / name}, line {number}: there is no file {image}')
        rows.append((image, int(label) - first_label))
    return rows

"""Writes tests/weights/golden/{zip,legacy,module}.pth, as torch saves them in its two formats; `module` is refused.

python tools/golden/pth_torch.py      (needs torch)
"""

from collections import OrderedDict
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / 'tests/weights/golden'


def main():
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = OrderedDict(
        weight=base,
        transposed=base[1].T,  # shares the storage, with other strides and an offset
        half=torch.tensor([1.5, -2.0]).half(),
        bfloat=torch.tensor([1.0, -0.5]).bfloat16(),
        count=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.tensor([[0.25]])),
        empty=torch.zeros(0, 3),
    )
    content = {'net': tensors, 'epoch': 3, 'args': {'name': 'x', 'rates': [0.1, 0.2]}}
    torch.save(content, FOLDER / 'zip.pth')
    torch.save(content, FOLDER / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save({'net': torch.nn.Linear(1, 1)}, FOLDER / 'module.pth')
    for path in sorted(FOLDER.glob('*.pth')):
        print(path.name, path.stat().st_size)


if __name__ == '__main__':
    main()

"""The drawing of the rooms in CONTRIBUTING.md is compared with the imports that are made."""

import ast
import re
import subprocess
import sys

import pytest

GROUND = 'ground floor'  # the modules of lib/canon that belong to no other room


@pytest.fixture(scope='module')
def drawing(root):
    """{room: the rooms that it imports}, from the top to the bottom; all rooms may import the ground floor."""
    blocks = re.findall(r'```\w*\n(.*?)```', (root / 'CONTRIBUTING.md').read_text(), re.DOTALL)
    (block,) = (block for block in blocks if GROUND in block)
    rooms = {}
    for line in block.splitlines():
        room = GROUND if line.startswith(GROUND) else line.partition('/')[0].strip()
        if room and not room.startswith(('=', ' ')):
            rooms[room] = set(line.partition('->')[2].replace('/', '').split())
    return rooms


def room_of(module, rooms):
    """The room of a dotted module; None for another library, and for `canon` itself."""
    package, _, rest = module.partition('.')
    if package != 'canon':
        return package if package in rooms else None
    room = rest.partition('.')[0]
    return room if room in rooms else GROUND if room else None


def imports_of(file):
    """The dotted names of all imports of a file, also those within functions and for type checkers."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{file}: relative imports are not used'
            # `from canon import models` imports a room by its name.
            yield from (f'canon.{alias.name}' if node.module == 'canon' else str(node.module) for alias in node.names)


@pytest.fixture(scope='module')
def made(root, drawing):
    """{room: {room that it imports: a file that does}}."""
    imports = {room: {} for room in drawing}
    for folder in ('lib/canon', 'experiments', 'launch', 'configs'):
        for file in sorted((root / folder).rglob('*.py')):
            path = file.relative_to(root / 'lib' if folder == 'lib/canon' else root)
            room = room_of('.'.join(path.with_suffix('').parts).removesuffix('.__init__'), drawing)
            for name in imports_of(file) if room else ():  # canon/__init__.py loads all rooms, lazily
                other = room_of(name, drawing)
                if other not in (None, room):
                    imports[room].setdefault(other, str(file.relative_to(root)))
    return imports


def test_the_drawing_shows_the_imports_that_are_made(drawing, made):
    for room, expected in drawing.items():
        imported = {other: file for other, file in made[room].items() if other != GROUND}
        missing = {other: file for other, file in imported.items() if other not in expected}
        assert not missing, f'CONTRIBUTING.md does not show that {room} imports {missing}'
        assert expected <= set(imported), f'CONTRIBUTING.md shows that {room} imports {expected - set(imported)}'


def test_no_room_imports_one_above_it(drawing, made):
    order = list(drawing)
    for room, others in made.items():
        upward = {other: file for other, file in others.items() if order.index(other) <= order.index(room)}
        assert not upward, f'{room} is below {upward}'


def test_every_room_of_the_library_is_drawn(root, drawing):
    rooms = {path.parent.name for path in (root / 'lib/canon').glob('*/__init__.py')}
    assert rooms - set(drawing) == {'named', 'native'}  # of the ground floor


def test_no_import_touches_a_device(root):
    """Devices are chosen when the processes of a job have met; forks of a process with XLA's threads hang."""
    program = (
        'import importlib, pkgutil, warnings, jax, canon, experiments\n'
        'warnings.simplefilter("ignore")\n'  # of optional libraries
        'for package in canon, experiments:\n'
        '    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):\n'
        '        importlib.import_module(module.name)\n'
        '        assert not jax._src.xla_bridge._backends, module.name\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stderr

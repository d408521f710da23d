"""What pyproject.toml cannot say: the data folders at the top go into the wheel, inside the package."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA_FOLDERS = ("targets", "tuning_logs")


class BuildWithData(build_py):
    """Copies each data folder to ``compiler/_data``, where compiler/support/resources.py looks for it."""

    def run(self) -> None:
        """Build the package, then add the data; an editable install reads the folders where they are."""
        super().run()
        if not self.editable_mode:
            for source, target in self._data():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return all files that are built, the data too."""
        data = [] if self.editable_mode else [str(target) for _, target in self._data()]
        return [*super().get_outputs(include_bytecode), *data]

    def get_source_files(self) -> list[str]:
        """Return all files that a source distribution needs, the data too."""
        return [*super().get_source_files(), *(str(source) for source, _ in self._data())]

    def _data(self) -> list[tuple[Path, Path]]:
        built = Path(self.build_lib) / "compiler" / "_data"
        return [
            (path, built / path)
            for folder in DATA_FOLDERS
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]


setup(cmdclass={"build_py": BuildWithData})

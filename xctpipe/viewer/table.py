"""The table of objects beside the picture: rows of the scan that is looked at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from xctpipe.segment.codes import COLOURS
from xctpipe.viewer.link import SECTIONS, Follower, InDepth, Link
from xctpipe.viewer.objects import COLUMNS, Entry, Objects, read_objects, text_of

_ALL = "all kinds"


class EntryModel(QAbstractTableModel):
    """Objects as Qt's tables take them."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = columns
        self.entries: list[Entry] = []

    def show(self, entries: list[Entry]) -> None:
        """Replace the rows."""
        self.beginResetModel()
        self.entries = entries
        self.endResetModel()

    def rowCount(self, parent: Any = None) -> int:  # noqa: N802 - Qt's name
        """Number of objects."""
        return 0 if parent is not None and parent.isValid() else len(self.entries)

    def columnCount(self, parent: Any = None) -> int:  # noqa: N802 - Qt's name
        """Number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell: its text, its value to sort by, its colour."""
        column = self.columns[index.column()]
        entry = self.entries[index.row()]
        value = entry.row.get(column)
        if role == Qt.ItemDataRole.DisplayRole:
            return text_of(value, column)
        if role == Qt.ItemDataRole.UserRole:
            return value
        if role == Qt.ItemDataRole.DecorationRole and column == "kind" and entry.kind in COLOURS:
            return QColor(*COLOURS[entry.kind])
        if role == Qt.ItemDataRole.TextAlignmentRole and not isinstance(value, str):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802 - Qt's name
        """Heads of the columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[self.columns[section]]
        return None


class ObjectsWidget(QWidget):
    """The objects of the scan that is looked at: a row chosen is shown, an object clicked is chosen.

    Parameters
    ----------
    napari_viewer : whose layers a run has; without one the widget says so and waits.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.objects: Objects | None = None
        self._label = 0
        self._busy = False
        self._depth: InDepth | None = None
        self._kind, self._section = QComboBox(), QComboBox()
        self._all = QCheckBox("all scans")
        self._clear = QPushButton("Show all")
        self._said = QLabel("Open a run: drop its folder on the window.")
        self.table = QTableView()
        self._model, self._sorted = EntryModel(()), QSortFilterProxyModel()
        self._lay_out()
        self.follower = follower = Follower(
            napari_viewer, opened=self._show_run, moved=self.show_scan, picked=self.choose
        )
        self._kind.currentTextChanged.connect(self._renew)
        self._all.toggled.connect(self._renew)
        self._section.currentTextChanged.connect(self._on_section)
        self._clear.clicked.connect(self.clear)
        self.table.clicked.connect(self._on_row)
        self.destroyed.connect(lambda *_: follower.cut())
        follower.look()

    def _lay_out(self) -> None:
        self._kind.setToolTip("objects of one kind only")
        self._all.setToolTip("rows of every scan, not only of the one that is looked at")
        self._section.setToolTip("plane that is looked at: across - down")
        self._section.addItems(list(SECTIONS))
        self._clear.setToolTip("choose no object: the picture shows the phases again")
        self._said.setWordWrap(True)
        top = QHBoxLayout()
        top.addWidget(self._kind, 1)
        for each in (self._all, self._section, self._clear):
            top.addWidget(each)
        whole = QVBoxLayout(self)
        whole.addLayout(top)
        whole.addWidget(self.table, 1)
        whole.addWidget(self._said)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setSortingEnabled(True)
        self.table.verticalHeader().setVisible(False)
        self.table.setMinimumWidth(420)

    @property
    def link(self) -> Link | None:
        """What ties the table to the run; None before there is one."""
        return self.follower.link

    def _show_run(self, link: Link) -> None:
        notes = list(link.run.notes)
        self.objects = read_objects(link.run, notes)
        if self._depth is not None:
            self._depth.cut()
        self._depth = InDepth(link)
        self._fill(self.objects)
        self._said.setToolTip("\n".join(notes))
        self.show_scan(link.scan)

    def _fill(self, objects: Objects) -> None:
        self._model, self._sorted = EntryModel(objects.columns), QSortFilterProxyModel()
        self._sorted.setSourceModel(self._model)
        self._sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self.table.setModel(self._sorted)
        # as they come: by kind, the largest first
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        with self._quiet():
            self._kind.clear()
            self._kind.addItems([_ALL, *objects.kinds])

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """What changes in here is our own doing, not the user's."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    @property
    def entries(self) -> list[Entry]:
        """Rows as they are shown, from above."""
        return [self._entry(self._sorted.index(i, 0)) for i in range(self._sorted.rowCount())]

    def _entry(self, index: Any) -> Entry:
        row: int = self._sorted.mapToSource(index).row()
        return self._model.entries[row]

    @property
    def chosen(self) -> Entry | None:
        """The object whose row is chosen."""
        selection = self.table.selectionModel()
        rows = selection.selectedRows() if selection is not None else []
        return self._entry(rows[0]) if rows else None

    def filter(self, kind: str | None) -> None:
        """Show objects of one kind only; None for all."""
        self._kind.setCurrentText(kind or _ALL)

    def show_scan(self, scan: int) -> None:
        """Show the rows of a scan; an object that was chosen stays so where its track goes on."""
        if self.objects is None or self.link is None:
            return
        kind, ours = self._kind.currentText(), self._busy
        with self._quiet():
            if not self._all.isChecked() or not self._model.entries:
                self._set_rows(None if kind == _ALL else kind)
            if self._label and not (ours or self.objects.tracked):
                self.clear()
            elif self._label:
                self._mark(self._label)
        count = len(self.objects.of(scan, kind=None if kind == _ALL else kind))
        what = "objects" if kind == _ALL else kind
        self._said.setText(f"{self.link.run.scans[scan].name}: {count} {what}")

    def _set_rows(self, kind: str | None) -> None:
        if self.objects is None or self.link is None:
            return
        every = self._all.isChecked()
        self._model.show(self.objects.of(None if every else self.link.scan, kind=kind))
        if "scan" in self._model.columns:
            self.table.setColumnHidden(self._model.columns.index("scan"), not every)
        self.table.resizeColumnsToContents()

    def choose(self, label: int) -> None:
        """Choose the object of the scan that is looked at, by its label in the picture, without moving."""
        if self._busy or self.objects is None or self.link is None:
            return
        entry = self.objects.find(self.link.scan, label)
        if entry is None:
            return
        self._label = label
        if self._kind.currentText() not in {_ALL, entry.kind}:
            self.filter(None)
        with self._quiet():
            self._mark(label)
            self.link.light(label)

    def clear(self) -> None:
        """Choose no object."""
        self._label = 0
        with self._quiet():
            self.table.clearSelection()
            if self.link is not None:
                self.link.light(0)

    def _mark(self, label: int) -> None:
        """Choose the row of a label in the scan that is looked at, without moving the picture."""
        scan = self.link.scan if self.link is not None else 0
        flags = QItemSelectionModel.SelectionFlag
        self.table.clearSelection()
        for i, entry in enumerate(self.entries):
            if (entry.scan, entry.label) == (scan, label):
                index = self._sorted.index(i, 0)
                self.table.selectionModel().setCurrentIndex(index, flags.ClearAndSelect | flags.Rows)
                self.table.scrollTo(index)
                return

    def _renew(self, *_: Any) -> None:
        """Other rows are asked for."""
        if self.link is not None and not self._busy:
            self._model.show([])
            self.show_scan(self.link.scan)

    def _on_section(self, section: str) -> None:
        if self.link is not None:
            self.link.look_along(section)

    def _on_row(self, current: QModelIndex, _: QModelIndex | None = None) -> None:
        if self._busy or self.link is None or not current.isValid():
            return
        entry = self._entry(current)
        self._label = entry.label
        # the row stays chosen while the slider moves, which shows the rows of its scan anew
        with self._quiet():
            self.link.go_to(entry)

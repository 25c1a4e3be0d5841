"""Cut images into bands of rows, and bands into tiles; what a network makes of the tiles, side by side, is the whole image."""

from __future__ import annotations

from dataclasses import dataclass

from cryoplug.core.tiling import Tile, plan_tiles
from cryoplug.inference.network.borders import band_borders
from cryoplug.inference.network.memory_plan import LEAST_TILE_PX, MemoryPlan, rows_that_fit

CPU_TILE_PX = (128, 256)
"""Rows and columns of a tile on the CPU; 16 channels of it are 2 MB and stay in cache."""
OVERLAPS_PER_TILE, MOST_WIDENED_PX = 8, 448
"""A network with a large receptive field gets larger tiles on the CPU, up to this side in pixels, to limit the overlap."""
CUDA_TILE_PX = (512, 4096)
"""Rows and columns of a tile on a GPU; large enough to use all of it, 270 MB for 32 channels."""
BAND_PIXELS = 1 << 20
"""Pixels of a band; a very wide image gets fewer rows per band, so that a band stays near 4 MB."""
LEAST_ROWS = 64
"""Fewest rows of a band, because every band is computed together with its overlap."""
ROLLED_PIXELS = 1 << 23
"""Pixels of a band for a network that rolls over its rows (32 MB): hardly any image is cut, and overlap costs 10 % at most."""


def usual_tile(*, on_cpu: bool, overlap_px: int) -> tuple[int, int]:
    """Give the rows and columns of a tile where nobody asks for others."""
    if not on_cpu:
        return CUDA_TILE_PX
    least = min(MOST_WIDENED_PX, OVERLAPS_PER_TILE * overlap_px)
    return max(CPU_TILE_PX[0], least), max(CPU_TILE_PX[1], least)


@dataclass
class Cutting:
    """How images are cut; it changes when memory runs out."""

    tile: tuple[int, int]
    """Rows and columns of a tile."""
    overlap_px: int
    """Pixels read around each tile."""
    multiple: int
    """Spacing of the network's pooling grid in pixels."""
    border_px: int
    """Pixels by which an image is continued beyond its borders."""
    sharing_threads: int
    """CPU threads that share a band; 0 on a GPU."""
    rolled: bool = False
    """Whether the network rolls over the rows of a band, which then is one tile."""
    plan: MemoryPlan | None = None
    """What fits into a given amount of memory; None: no limit."""

    def bands(self, shape: tuple[int, int]) -> list[Tile]:
        """Cut an image ``(y, x)`` into bands of full width, from top to bottom."""
        rows = min(self.tile[0], max(LEAST_ROWS, 4 * self.overlap_px, BAND_PIXELS // shape[1]))
        if not self.sharing_threads:
            rows = self.tile[0]
        if self.rolled:
            rows = max(rows, ROLLED_PIXELS // shape[1])
        if self.plan is not None:
            rows = rows_that_fit(self.plan, min(rows, shape[0]), shape[1], overlap_px=self.overlap_px)
        return plan_tiles(shape, tile=(rows, shape[1]), overlap=self.overlap_px, multiple=self.multiple)

    def tiles(self, shape: tuple[int, ...]) -> list[Tile]:
        """Cut a band ``(y, x)``, which was continued beyond the borders, into tiles."""
        if self.rolled:
            return plan_tiles((shape[0], shape[1]), tile=(shape[0], shape[1]), overlap=0)
        height, width = self.tile[0] + 2 * self.overlap_px, self.tile[1]
        if self.sharing_threads:
            width = min(width, max(LEAST_TILE_PX, -(-shape[1] // self.sharing_threads)))
        return plan_tiles((shape[0], shape[1]), tile=(height, width), overlap=self.overlap_px, multiple=self.multiple)

    def tiles_of(self, band: Tile) -> list[Tile]:
        """Cut a band of an image into tiles."""
        return self.tiles(self._continued_shape(band))

    def borders(self, shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the first rows and first columns of the tiles of an image ``(y, x)``."""
        bands = self.bands(shape)
        # A tile is as high as its band, so the bands carry all borders between rows.
        columns = {max(0, tile.paste.x0 - self.border_px) for tile in self.tiles_of(bands[0])}
        return tuple(sorted({band.paste.y0 for band in bands})), tuple(sorted(columns))

    def is_one_tile(self, shape: tuple[int, int]) -> bool:
        """Tell whether an image ``(y, x)`` is computed in one piece."""
        bands = self.bands(shape)
        # Threads share the images, so that none need be cut for them.
        return len(bands) == 1 and shape[0] <= self.tile[0] and self._continued_shape(bands[0])[1] <= self.tile[1]

    def made_smaller(self, tile: tuple[int, int]) -> bool:
        """Halve a tile with which memory ran out; False if there is no smaller one."""
        if max(tile) <= LEAST_TILE_PX:
            return False
        if self.tile == tile:  # else another band made them smaller already
            height, width = tile
            self.tile = (
                min(height, max(height // 2, LEAST_TILE_PX)),
                min(width, max(width // 2, LEAST_TILE_PX)),
            )
        return True

    def _continued_shape(self, band: Tile) -> tuple[int, int]:
        above, below = band_borders(band, overlap_px=self.overlap_px, width_px=self.border_px)
        height, width = band.read.shape
        return height + above + below, width + 2 * self.border_px

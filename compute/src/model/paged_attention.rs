//! Attention of a block of positions over pages: which task computes which queries.
//!
//! The positions of every sequence are cut into tiles; a task takes one tile and one key and value
//! head, with all query heads that read it. Where that makes too few tasks for the threads, as in
//! the decode of one sequence, a task takes only one range of positions, and the ranges are joined
//! in their order afterwards. Results are the same either way: see `kernels::attention`.

use std::ops::Range;

use super::AttentionDescription;
use super::block::{Block, Part};
use super::kv_cache::PagedLayer;
use crate::cpu::with_scratch;
use crate::cpu::{Cancelled, Disjoint};
use crate::kernels::attention::{Partial, Queries, RANGE_POSITIONS, TileScratch};

/// Queries of a tile, at most, unless one position has more query heads to a key head.
const TILE_QUERIES: usize = 64;
/// Positions of a tile, at most.
const TILE_POSITIONS: usize = 32;
/// Tasks for each thread below which the ranges are tasks of their own.
const TASKS_A_THREAD: usize = 4;

/// Lends the layer's pages of a segment; none where its cache has no pages.
type Pages<'w, 'c> = &'w (dyn Fn(usize) -> Option<PagedLayer<'c>> + Sync);

/// Some positions of one sequence.
#[derive(Debug, Clone, Copy)]
struct Tile {
    segment: usize,
    /// The first position, its row in the block, and how many there are.
    first: usize,
    row: usize,
    count: usize,
    /// Ranges that are seen: of positions, by their index.
    ranges: (usize, usize),
    /// Where its partial results begin, where ranges are tasks.
    partials: usize,
    /// The first task that is not one of this tile's.
    end: usize,
}

/// Lists that are kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    tiles: Vec<Tile>,
    partials: Vec<f32>,
}

/// What is the same for all tiles of a layer.
struct Work<'w, 'c> {
    description: &'w AttentionDescription,
    pages: Pages<'w, 'c>,
    queries: &'w [f32],
    sinks: Option<&'w [f32]>,
    out: Disjoint<'w, f32>,
}

/// Writes the heads' outputs of every row whose segment has pages.
///
/// # Shapes
/// `queries`: `[n, heads * head_dim]`; `sinks`: `[heads]`; `out`: `[n, heads * value_dim]`.
/// # Errors
/// `Cancelled`, asked before every task.
pub(super) fn attend(
    Block { pool, parts, cancel, .. }: Block<'_>,
    description: &AttentionDescription,
    pages: Pages<'_, '_>,
    queries: &[f32],
    sinks: Option<&[f32]>,
    out: &mut [f32],
    plan: &mut Plan,
) -> Result<(), Cancelled> {
    let kv_heads = description.kv_heads;
    plan.cut(description, parts.iter().filter(|part| pages(part.segment).is_some()));
    let whole = plan.tiles.len() * kv_heads;
    let split = whole < TASKS_A_THREAD * pool.threads() && pool.threads() > 1;
    let tasks = plan.number(description, split);
    let work = Work { description, pages, queries, sinks, out: Disjoint::new(out) };
    let Plan { tiles, partials } = plan;
    if !split {
        pool.run(tasks, &|task| {
            if cancel.check().is_ok() {
                let (tile, index) = find(tiles, task);
                work.tile(tile, index);
            }
        });
        return cancel.check();
    }
    let results = Disjoint::new(partials.as_mut_slice());
    pool.run(tasks, &|task| {
        if cancel.check().is_ok() {
            let (tile, index) = find(tiles, task);
            let ranges = tile.ranges.1 - tile.ranges.0;
            let length = work.partial_length(tile);
            // SAFETY: each task has a place of its own.
            let memory = unsafe { results.slice(tile.partials + index * length, length) };
            work.range(tile, index / ranges, tile.ranges.0 + index % ranges, memory);
        }
    });
    cancel.check()?;
    for tile in tiles.iter() {
        for head in 0..kv_heads {
            work.join(tile, head, partials);
        }
    }
    Ok(())
}

/// Lends memory that begins at a cache line, as what is read in whole lines should.
fn with_lines<R>(length: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    const LINE: usize = 64;
    const NUMBERS: usize = LINE / size_of::<f32>();
    with_scratch(length + NUMBERS, |memory| {
        let first = memory.as_ptr().align_offset(LINE).min(NUMBERS);
        run(&mut memory[first..first + length])
    })
}

/// The tile that a task is of, and the task's index among the tile's.
fn find(tiles: &[Tile], task: usize) -> (&Tile, usize) {
    let index = tiles.partition_point(|tile| tile.end <= task);
    let begin = if index == 0 { 0 } else { tiles[index - 1].end };
    (&tiles[index], task - begin)
}

impl Plan {
    /// Cuts the parts' rows into tiles that begin at multiples of their length.
    fn cut<'p>(
        &mut self,
        description: &AttentionDescription,
        parts: impl Iterator<Item = &'p Part>,
    ) {
        let group = description.heads / description.kv_heads;
        let most = (TILE_QUERIES / group).clamp(1, TILE_POSITIONS);
        // A power of two, so that tiles end where pages do.
        let most = 1 << most.ilog2();
        self.tiles.clear();
        for &Part { segment, first, row, count, .. } in parts {
            let (mut first, mut row, end) = (first, row, row + count);
            while row < end {
                let count = (most - first % most).min(end - row);
                let oldest =
                    description.window.map_or(0, |window| (first + 1).saturating_sub(window));
                let last = first + count - 1;
                let ranges = (oldest / RANGE_POSITIONS, last / RANGE_POSITIONS + 1);
                self.tiles.push(Tile { segment, first, row, count, ranges, partials: 0, end: 0 });
                (row, first) = (row + count, first + count);
            }
        }
    }

    /// Numbers the tasks, and makes room for partial results; returns how many tasks there are.
    fn number(&mut self, description: &AttentionDescription, split: bool) -> usize {
        let (mut tasks, mut numbers) = (0, 0);
        let group = description.heads / description.kv_heads;
        for tile in &mut self.tiles {
            let ranges = if split { tile.ranges.1 - tile.ranges.0 } else { 1 };
            let length = Partial::length(tile.count * group, description.value_dim);
            tile.partials = numbers;
            tasks += description.kv_heads * ranges;
            numbers += if split { description.kv_heads * ranges * length } else { 0 };
            tile.end = tasks;
        }
        self.partials.resize(numbers.max(self.partials.len()), 0.0);
        tasks
    }
}

impl<'c> Work<'_, 'c> {
    fn pages(&self, tile: &Tile) -> PagedLayer<'c> {
        (self.pages)(tile.segment).expect("tiles are of segments with pages")
    }

    fn group(&self) -> usize {
        self.description.heads / self.description.kv_heads
    }

    fn partial_length(&self, tile: &Tile) -> usize {
        Partial::length(tile.count * self.group(), self.description.value_dim)
    }

    /// Positions of one range that the tile sees; `range` is an index.
    fn positions(span: Range<usize>, range: usize) -> Range<usize> {
        let first = range * RANGE_POSITIONS;
        span.start.max(first)..span.end.min(first + RANGE_POSITIONS)
    }

    /// The tile's queries of one head, scaled, in memory that is lent.
    fn queries<'m>(&self, tile: &Tile, head: usize, memory: &'m mut [f32]) -> Queries<'m> {
        let &AttentionDescription { heads, head_dim, value_dim, scale, .. } = self.description;
        let group = self.group();
        let rows = &mut memory[..tile.count * group * head_dim];
        for (index, row) in rows.chunks_exact_mut(group * head_dim).enumerate() {
            let first = ((tile.row + index) * heads + head * group) * head_dim;
            for (row, query) in row.iter_mut().zip(&self.queries[first..]) {
                *row = query * scale;
            }
        }
        Queries {
            rows,
            head_dim,
            value_dim,
            group,
            first: tile.first,
            window: self.description.window,
            softcap: self.description.softcap,
        }
    }

    /// Numbers that the queries of a tile and the work on them take.
    fn memory(&self, tile: &Tile) -> usize {
        let &AttentionDescription { head_dim, value_dim, .. } = self.description;
        let n = tile.count * self.group();
        n * head_dim + TileScratch::length(n, head_dim, value_dim)
    }

    /// Writes the partial result of one head and range.
    fn range(&self, tile: &Tile, head: usize, range: usize, result: &mut [f32]) {
        let &AttentionDescription { head_dim, value_dim, .. } = self.description;
        let n = tile.count * self.group();
        let pages = self.pages(tile);
        with_lines(self.memory(tile), |memory| {
            let (mut scratch, rest) = TileScratch::take(memory, n, head_dim, value_dim);
            let (mut partial, _) = Partial::take(result, n, value_dim);
            let queries = self.queries(tile, head, rest);
            let positions = Self::positions(queries.span(), range);
            partial.gather(&queries, positions, |page| pages.head(page, head), &mut scratch);
        });
    }

    /// Joins the ranges of one head and writes the outputs.
    fn join(&self, tile: &Tile, head: usize, partials: &mut [f32]) {
        let value_dim = self.description.value_dim;
        let n = tile.count * self.group();
        let length = self.partial_length(tile);
        let ranges = tile.ranges.1 - tile.ranges.0;
        let results = &mut partials[tile.partials + head * ranges * length..][..ranges * length];
        with_scratch(length, |memory| {
            let (mut total, _) = Partial::take(memory, n, value_dim);
            total.begin(self.sinks(head));
            for result in results.chunks_exact_mut(length) {
                total.join(&Partial::take(result, n, value_dim).0);
            }
            self.write(tile, head, &total);
        });
    }

    /// Computes all of a tile for one head.
    fn tile(&self, tile: &Tile, head: usize) {
        let &AttentionDescription { head_dim, value_dim, .. } = self.description;
        let n = tile.count * self.group();
        let pages = self.pages(tile);
        with_lines(self.memory(tile) + 2 * self.partial_length(tile), |memory| {
            let (mut scratch, rest) = TileScratch::take(memory, n, head_dim, value_dim);
            let (mut total, rest) = Partial::take(rest, n, value_dim);
            let (mut partial, rest) = Partial::take(rest, n, value_dim);
            let queries = self.queries(tile, head, rest);
            total.begin(self.sinks(head));
            for range in tile.ranges.0..tile.ranges.1 {
                let positions = Self::positions(queries.span(), range);
                partial.gather(&queries, positions, |page| pages.head(page, head), &mut scratch);
                total.join(&partial);
            }
            self.write(tile, head, &total);
        });
    }

    /// The sinks of the query heads that read a key head.
    fn sinks(&self, head: usize) -> Option<&[f32]> {
        let group = self.group();
        self.sinks.map(|sinks| &sinks[head * group..(head + 1) * group])
    }

    fn write(&self, tile: &Tile, head: usize, total: &Partial<'_>) {
        let &AttentionDescription { heads, value_dim, .. } = self.description;
        let group = self.group();
        for index in 0..tile.count {
            for member in 0..group {
                let first = ((tile.row + index) * heads + head * group + member) * value_dim;
                // SAFETY: a head of a row is of one tile and key head alone.
                total.finish(index * group + member, unsafe { self.out.slice(first, value_dim) });
            }
        }
    }
}

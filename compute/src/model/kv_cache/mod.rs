//! What a model remembers of the tokens it has read: keys and values of every layer.
//!
//! The decoder alone writes here, a block of positions at a time; others see how long the cache
//! is, how large, and can cut it back to a common prefix. There are two kinds behind one type:
//! rows of `f32` (`rows`), which exact runs read, and pages of packed numbers (`pages`), which
//! sequences of one model share and serving reads.

mod pages;
mod rows;

use self::pages::Paged;
use self::rows::Rows;
use std::sync::Arc;

use super::{Architecture, DecodeError, Overlay};
use crate::cpu::Pool;
use crate::kernels::attention::{PAGE_POSITIONS, PageHead};

pub use self::pages::{KvPages, KvType, SharedPage};

/// The keys and values of one sequence.
///
/// Memory grows with the positions read and never above [`bytes_max`](KvCache::bytes_max).
#[derive(Debug)]
pub struct KvCache {
    positions_max: usize,
    length: usize,
    widths: Vec<Widths>,
    storage: Storage,
    /// The edits that its sequence is read under.
    overlay: Option<Arc<Overlay>>,
}

#[derive(Debug)]
enum Storage {
    Rows(Rows),
    Paged(Paged),
}

/// Numbers of a position in one layer; none where the layer reads another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    keys: usize,
    values: usize,
}

impl Widths {
    fn of(architecture: &Architecture) -> Vec<Widths> {
        let widths = |layer| {
            let attention = &architecture.layer(layer).attention;
            Widths { keys: attention.key_width(), values: attention.value_width() }
        };
        (0..architecture.layers()).map(widths).collect()
    }
}

/// The keys and values of one layer.
pub(super) enum LayerCache<'c> {
    /// `[positions, key_width]` and `[positions, value_width]`.
    Rows(&'c [f32], &'c [f32]),
    /// Lent by page and head.
    Paged(PagedLayer<'c>),
}

/// One layer of a paged cache.
#[derive(Clone, Copy)]
pub(super) struct PagedLayer<'c> {
    pages: &'c Paged,
    layer: usize,
}

impl<'c> PagedLayer<'c> {
    /// One key and value head of a page.
    pub(super) fn head(&self, page: usize, head: usize) -> PageHead<'c> {
        self.pages.head(self.layer, page, head)
    }
}

impl KvCache {
    /// An empty cache of rows for a model. It holds `positions_max` positions, or as many as the
    /// model was made for (`context_max`) where that is less.
    pub fn new(architecture: &Architecture, positions_max: usize) -> KvCache {
        KvCache {
            positions_max: positions_max.min(architecture.context_max),
            length: 0,
            widths: Widths::of(architecture),
            storage: Storage::Rows(Rows::new(architecture.layers())),
            overlay: None,
        }
    }

    /// The same cache for a sequence that is read under edits. What it holds already must have been
    /// read under the same ones.
    #[must_use]
    pub fn with_overlay(self, overlay: Option<Arc<Overlay>>) -> KvCache {
        KvCache { overlay: overlay.filter(|overlay| !overlay.is_empty()), ..self }
    }

    /// The edits that its sequence is read under.
    pub fn overlay(&self) -> Option<&Arc<Overlay>> {
        self.overlay.as_ref()
    }

    /// Positions read so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Positions there is room for in all.
    pub fn capacity(&self) -> usize {
        self.positions_max
    }

    /// Whether keys and values lie in pages.
    pub fn is_paged(&self) -> bool {
        matches!(self.storage, Storage::Paged(_))
    }

    /// A cache that has read the same. Pages are shared until one of the two writes into them; rows
    /// are copied.
    pub fn fork(&self) -> KvCache {
        let storage = match &self.storage {
            Storage::Rows(rows) => Storage::Rows(rows.clone()),
            Storage::Paged(paged) => Storage::Paged(paged.clone()),
        };
        KvCache { widths: self.widths.clone(), storage, overlay: self.overlay.clone(), ..*self }
    }

    /// Forgets all but the first `positions`; a longer length than there is changes nothing.
    ///
    /// Pages are given back. A page that others hold is left to them: the cache goes on with a
    /// copy once it writes there.
    pub fn truncate(&mut self, positions: usize) {
        self.length = self.length.min(positions);
        match &mut self.storage {
            Storage::Rows(rows) => rows.truncate(&self.widths, self.length),
            Storage::Paged(paged) => paged.truncate(self.length),
        }
    }

    /// Memory taken now, in bytes; shared pages count.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Rows(rows) => rows.bytes(),
            Storage::Paged(paged) => paged.pages() * paged.page_bytes(),
        }
    }

    /// Memory taken when the cache is full, in bytes.
    pub fn bytes_max(&self) -> usize {
        match &self.storage {
            Storage::Rows(_) => {
                let numbers = self.widths.iter().map(|width| width.keys + width.values).sum();
                self.positions_max.saturating_mul(numbers).saturating_mul(size_of::<f32>())
            }
            Storage::Paged(paged) => {
                paged.page_bytes().saturating_mul(self.positions_max.div_ceil(PAGE_POSITIONS))
            }
        }
    }

    /// The pages that are full, for others to begin with; none where there are no pages.
    pub fn whole_pages(&self) -> &[SharedPage] {
        match &self.storage {
            Storage::Rows(_) => &[],
            Storage::Paged(paged) => paged.whole(self.length),
        }
    }

    /// Pages that reading so many more positions takes; 0 where there are no pages.
    pub fn pages_needed(&self, positions: usize) -> usize {
        match &self.storage {
            Storage::Rows(_) => 0,
            Storage::Paged(paged) => paged.needed(self.length, positions),
        }
    }

    /// Whether this cache was made for a model of this shape.
    pub(super) fn fits(&self, architecture: &Architecture) -> bool {
        self.widths.len() == architecture.layers()
            && self.widths.iter().enumerate().all(|(layer, widths)| {
                let attention = &architecture.layer(layer).attention;
                (widths.keys, widths.values) == (attention.key_width(), attention.value_width())
            })
            && match &self.storage {
                Storage::Rows(_) => true,
                Storage::Paged(paged) => paged.fits(architecture),
            }
    }

    /// Makes room for `count` more positions.
    ///
    /// # Errors
    /// `Memory` and `PagesExhausted`; the positions read so far stay.
    pub(super) fn reserve(&mut self, count: usize) -> Result<(), DecodeError> {
        let needed = self.length + count;
        match &mut self.storage {
            Storage::Rows(rows) => rows
                .reserve(&self.widths, (self.length, needed, self.positions_max))
                .map_err(|_| DecodeError::Memory { positions: needed }),
            Storage::Paged(paged) => paged.reserve(self.length, count),
        }
    }

    /// Writes rows, `[n, key_width]` and `[n, value_width]`, of one layer from position `first`
    /// on, where it ends; they count once `advance` says so.
    pub(super) fn write(
        &mut self,
        pool: &Pool,
        layer: usize,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        match &mut self.storage {
            Storage::Rows(rows) => rows.append(layer, keys, values),
            Storage::Paged(paged) => paged.write(pool, layer, first, keys, values),
        }
    }

    /// Counts `count` positions whose rows every layer has.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// The keys and values of one layer.
    pub(super) fn layer(&self, layer: usize) -> LayerCache<'_> {
        match &self.storage {
            Storage::Rows(rows) => {
                let (keys, values) = rows.layer(layer);
                LayerCache::Rows(keys, values)
            }
            Storage::Paged(pages) => LayerCache::Paged(PagedLayer { pages, layer }),
        }
    }
}

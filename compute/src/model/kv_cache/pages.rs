//! Pages of packed keys and values: the memory that all sequences of a model share.
//!
//! A page holds 32 positions of all layers that have keys of their own; of each layer the heads
//! after one another, keys as `[dim][position]` and values as `[position][dim]`, so that a kernel
//! has positions in the lanes of the scores and dimensions in those of the values. In `Q8` the
//! scales of a head's positions follow its codes.
//!
//! Models may have pages beside one another in the same memory, each of its own shape.
//!
//! A page belongs to the caches that hold it, and goes back to the free ones with the last of
//! them. It is written by one cache as long as no other holds it, and never after it is shared.

use std::collections::TryReserveError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{KvCache, Storage, Widths};
use crate::cpu::Pool;
use crate::kernels::attention::{PAGE_POSITIONS, Packed, PageHead, pack_f16, pack_q8};
use crate::model::{Architecture, DecodeError, RopeScaling};

/// How keys and values are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Binary16.
    #[default]
    F16,
    /// Codes of 8 bits with one scale for each position and head.
    Q8,
}

impl KvType {
    /// Every type, by the name that configurations give it.
    pub const ALL: [(&'static str, KvType); 2] = [("f16", KvType::F16), ("q8", KvType::Q8)];
}

/// Arrays in a page begin at multiples of so many bytes.
const ALIGNMENT: usize = 64;

/// A cache line of a page.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

// SAFETY: 64 bytes without padding, of which every value is one.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// Where one layer's numbers lie in a page.
#[derive(Debug, Clone, Copy)]
struct LayerPlace {
    heads: usize,
    key_dim: usize,
    value_dim: usize,
    /// Where the heads' keys and values begin, in bytes.
    keys: usize,
    values: usize,
}

/// What a page of a model looks like.
#[derive(Debug)]
struct Layout {
    kv_type: KvType,
    positions_max: usize,
    widths: Vec<Widths>,
    /// None for a layer that reads another's keys.
    layers: Vec<Option<LayerPlace>>,
    page_bytes: usize,
    /// Lengths of context beyond which a rotation has other frequencies.
    rope_limits: Vec<usize>,
}

impl Layout {
    fn new(architecture: &Architecture, kv_type: KvType) -> Layout {
        let mut page_bytes = 0;
        let mut rope_limits = Vec::new();
        let layers = (0..architecture.layers()).map(|index| {
            let attention = &architecture.layer(index).attention;
            if let Some(rope) = &attention.rope
                && let RopeScaling::LongRope { context_original, .. } = rope.scaling
            {
                rope_limits.push(context_original);
            }
            attention.kv_from.is_none().then(|| {
                let mut place = LayerPlace {
                    heads: attention.kv_heads,
                    key_dim: attention.head_dim,
                    value_dim: attention.value_dim,
                    keys: page_bytes,
                    values: 0,
                };
                place.values = place.keys + place.heads * head_bytes(kv_type, place.key_dim);
                page_bytes = place.values + place.heads * head_bytes(kv_type, place.value_dim);
                place
            })
        });
        let layers = layers.collect();
        Layout {
            kv_type,
            positions_max: architecture.context_max,
            widths: Widths::of(architecture),
            layers,
            page_bytes,
            rope_limits,
        }
    }

    /// Which frequencies a context of so many positions turns keys by: keys of different ones do
    /// not belong together.
    fn regime(&self, positions_max: usize) -> usize {
        self.rope_limits.iter().filter(|&&limit| positions_max > limit).count()
    }
}

/// Bytes of one head of a page, scales included.
fn head_bytes(kv_type: KvType, dim: usize) -> usize {
    match kv_type {
        KvType::F16 => PAGE_POSITIONS * dim * size_of::<u16>(),
        KvType::Q8 => {
            (PAGE_POSITIONS * dim).next_multiple_of(ALIGNMENT) + PAGE_POSITIONS * size_of::<f32>()
        }
    }
}

/// The pages of one model; clones share them.
#[derive(Debug, Clone)]
pub struct KvPages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    memory: Arc<Memory>,
    /// Whether the memory was made for this model: its pages are kept when nobody holds them.
    is_host: bool,
    /// Pages that somebody holds; changed under the memory's lock.
    used: AtomicUsize,
}

/// What the pages of one model, and of those beside it, may take together.
#[derive(Debug)]
struct Memory {
    bytes_max: usize,
    /// Of the model that it was made for.
    page_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Memory of pages that somebody holds, whatever their model.
    used_bytes: usize,
    /// Memory of pages of the host that nobody holds.
    free: Vec<Vec<Line>>,
    /// Memory of pages beside the host's, between asking for it and giving it out.
    asked: Vec<Vec<Line>>,
}

/// 32 positions that several caches may hold; what is in it no longer changes.
#[derive(Debug, Clone)]
pub struct SharedPage(Arc<Page>);

#[derive(Debug)]
struct Page {
    lines: Vec<Line>,
    regime: usize,
    home: Arc<Shared>,
}

impl SharedPage {
    /// Whether somebody beside this holder has the page, so that dropping it frees nothing.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut state = self.home.memory.state();
        self.home.count(&mut state, 0, 1);
        if self.home.is_host {
            state.free.push(std::mem::take(&mut self.lines));
        }
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn new(layout: Layout, memory: Arc<Memory>, is_host: bool) -> Shared {
        Shared { layout, memory, is_host, used: AtomicUsize::new(0) }
    }

    /// Pages that could be taken now.
    fn pages_free(&self, state: &State) -> usize {
        (self.memory.bytes_max - state.used_bytes) / self.layout.page_bytes.max(1)
    }

    /// Takes note of pages that somebody takes or gives back.
    fn count(&self, state: &mut State, taken: usize, given: usize) {
        let bytes = self.layout.page_bytes;
        state.used_bytes = state.used_bytes + taken * bytes - given * bytes;
        let used = self.used.load(Ordering::Relaxed) + taken - given;
        self.used.store(used, Ordering::Relaxed);
    }

    /// Memory of pages that nobody holds.
    fn spare<'s>(&self, state: &'s mut State) -> &'s mut Vec<Vec<Line>> {
        if self.is_host { &mut state.free } else { &mut state.asked }
    }

    /// Sees to it that there is spare memory for so many pages, which are counted as used.
    fn ask(&self, state: &mut State, needed: usize) -> Result<(), TryReserveError> {
        if self.is_host {
            // So that a page that is given back finds its place without asking for memory.
            let used = self.used.load(Ordering::Relaxed);
            if state.free.capacity() < used + state.free.len() {
                state.free.try_reserve(used)?;
            }
        } else {
            // What is kept for the host's next pages counts when others take their place.
            let room = self.memory.bytes_max - state.used_bytes;
            state.free.truncate(room / self.memory.page_bytes.max(1));
        }
        let spare = self.spare(state);
        while spare.len() < needed {
            let mut lines: Vec<Line> = Vec::new();
            let count = self.layout.page_bytes.div_ceil(ALIGNMENT);
            lines.try_reserve_exact(count)?;
            lines.resize(count, Line([0; ALIGNMENT]));
            spare.push(lines);
        }
        Ok(())
    }
}

impl KvPages {
    /// Pages for a model's caches, in at most `bytes_max` of memory, which is taken as it is used.
    pub fn new(architecture: &Architecture, kv_type: KvType, bytes_max: usize) -> KvPages {
        let layout = Layout::new(architecture, kv_type);
        let page_bytes = layout.page_bytes;
        let memory = Memory { bytes_max, page_bytes, state: Mutex::default() };
        KvPages { shared: Arc::new(Shared::new(layout, Arc::new(memory), true)) }
    }

    /// Pages for caches of another model within the same memory: what these take, those lack.
    pub fn beside(&self, architecture: &Architecture) -> KvPages {
        let layout = Layout::new(architecture, self.kv_type());
        KvPages { shared: Arc::new(Shared::new(layout, Arc::clone(&self.shared.memory), false)) }
    }

    /// Pages for one cache of `positions_max` positions (or as many as the model was made for).
    pub fn for_positions(
        architecture: &Architecture,
        kv_type: KvType,
        positions_max: usize,
    ) -> KvPages {
        KvPages::for_caches(architecture, kv_type, 1, positions_max)
    }

    /// Pages for so many caches at a time, each of `positions_max` positions.
    pub fn for_caches(
        architecture: &Architecture,
        kv_type: KvType,
        caches: usize,
        positions_max: usize,
    ) -> KvPages {
        let pages = positions_max.min(architecture.context_max).div_ceil(PAGE_POSITIONS);
        let page_bytes = Layout::new(architecture, kv_type).page_bytes;
        KvPages::new(architecture, kv_type, page_bytes.saturating_mul(pages).saturating_mul(caches))
    }

    /// An empty cache of at most `positions_max` positions, or as many as the model was made for.
    /// It takes pages as it grows.
    pub fn cache(&self, positions_max: usize) -> KvCache {
        self.cache_from(&[], positions_max)
    }

    /// A cache that begins with pages of another one: [`KvCache::len`] says with how many
    /// positions. Pages are left out from the first on that does not belong here, is of a context
    /// whose rotary frequencies are others, or does not fit.
    pub fn cache_from(&self, pages: &[SharedPage], positions_max: usize) -> KvCache {
        let layout = &self.shared.layout;
        let positions_max = positions_max.min(layout.positions_max);
        let regime = layout.regime(positions_max);
        let fitting = pages
            .iter()
            .take(positions_max / PAGE_POSITIONS)
            .take_while(|page| page.0.regime == regime && Arc::ptr_eq(&page.0.home, &self.shared));
        let pages: Vec<SharedPage> = fitting.cloned().collect();
        KvCache {
            positions_max,
            length: pages.len() * PAGE_POSITIONS,
            widths: layout.widths.clone(),
            storage: Storage::Paged(Paged { pages, regime, home: Arc::clone(&self.shared) }),
            overlay: None,
        }
    }

    /// How keys and values are packed.
    pub fn kv_type(&self) -> KvType {
        self.shared.layout.kv_type
    }

    /// Memory that pages may take, those of other models beside these included.
    pub fn bytes_max(&self) -> usize {
        self.shared.memory.bytes_max
    }

    /// Pages that there may be, if all memory is theirs.
    pub fn pages_max(&self) -> usize {
        self.bytes_max() / self.page_bytes().max(1)
    }

    /// Pages that caches, or others, hold now.
    pub fn pages_used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Pages that could be taken now: pages of other models beside these take memory too.
    pub fn pages_free(&self) -> usize {
        self.shared.pages_free(&self.shared.memory.state())
    }

    /// Memory that could be taken now, by pages of any model.
    pub fn bytes_free(&self) -> usize {
        self.bytes_max() - self.shared.memory.state().used_bytes
    }

    /// Pages that `positions` take.
    pub fn pages_for(&self, positions: usize) -> usize {
        positions.div_ceil(PAGE_POSITIONS)
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.shared.layout.page_bytes
    }
}

/// The pages of one cache.
#[derive(Debug, Clone)]
pub(super) struct Paged {
    /// Page `i` holds the positions from `32 i` on; the last may be partly written.
    pages: Vec<SharedPage>,
    regime: usize,
    home: Arc<Shared>,
}

impl Paged {
    /// Pages that all hold: those before the last one that is not full.
    pub(super) fn whole(&self, length: usize) -> &[SharedPage] {
        &self.pages[..length / PAGE_POSITIONS]
    }

    pub(super) fn truncate(&mut self, positions: usize) {
        self.pages.truncate(positions.div_ceil(PAGE_POSITIONS));
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.home.layout.page_bytes
    }

    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Pages to be taken for `count` more positions, the copy of a shared one included.
    pub(super) fn needed(&self, length: usize, count: usize) -> usize {
        let whole = (length + count).div_ceil(PAGE_POSITIONS);
        let copy = count > 0
            && !length.is_multiple_of(PAGE_POSITIONS)
            && self.pages.last().is_some_and(|page| Arc::strong_count(&page.0) > 1);
        whole - self.pages.len() + usize::from(copy)
    }

    /// Takes the pages for `count` more positions, all of them or none.
    pub(super) fn reserve(&mut self, length: usize, count: usize) -> Result<(), DecodeError> {
        let needed = self.needed(length, count);
        if needed == 0 {
            return Ok(());
        }
        let memory = |_| DecodeError::Memory { positions: length + count };
        self.pages.try_reserve(needed).map_err(memory)?;
        let mut state = self.home.memory.state();
        let free = self.home.pages_free(&state);
        if needed > free {
            return Err(DecodeError::PagesExhausted { needed, free });
        }
        self.home.count(&mut state, needed, 0);
        if let Err(error) = self.home.ask(&mut state, needed) {
            self.home.count(&mut state, 0, needed);
            state.asked.clear();
            return Err(memory(error));
        }
        let mut taken = 0;
        let mut take = || {
            taken += 1;
            let lines = self.home.spare(&mut state).pop().expect("as many as are needed");
            Page { lines, regime: self.regime, home: Arc::clone(&self.home) }
        };
        // Written in part and held by another: it goes on as a copy. The old page may be ours alone
        // by now, and its end asks for the state.
        let mut old = None;
        if !length.is_multiple_of(PAGE_POSITIONS)
            && let Some(last) = self.pages.last_mut()
            && Arc::get_mut(&mut last.0).is_none()
        {
            let mut copy = take();
            copy.lines.copy_from_slice(&last.0.lines);
            old = Some(std::mem::replace(last, SharedPage(Arc::new(copy))));
        }
        let whole = (length + count).div_ceil(PAGE_POSITIONS);
        while self.pages.len() < whole {
            self.pages.push(SharedPage(Arc::new(take())));
        }
        self.home.count(&mut state, 0, needed - taken);
        state.asked.clear();
        drop(state);
        drop(old);
        Ok(())
    }

    /// Whether the pages are of a model of this shape.
    pub(super) fn fits(&self, architecture: &Architecture) -> bool {
        self.home.layout.layers.iter().enumerate().all(|(layer, place)| {
            let attention = &architecture.layer(layer).attention;
            place.is_none_or(|place| {
                (place.heads, place.key_dim, place.value_dim)
                    == (attention.kv_heads, attention.head_dim, attention.value_dim)
            })
        })
    }

    /// Writes rows of one layer from a position on, whose pages are reserved; a page is a task.
    pub(super) fn write(
        &mut self,
        pool: &Pool,
        layer: usize,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let Paged { pages, home, .. } = self;
        let layout = &home.layout;
        let Some(place) = layout.layers[layer] else { return };
        let (key_width, value_width) = (place.heads * place.key_dim, place.heads * place.value_dim);
        let end = first + keys.len() / key_width;
        let touched = first / PAGE_POSITIONS..end.div_ceil(PAGE_POSITIONS);
        pool.run_chunks(&mut pages[touched.clone()], 1, &|index, page| {
            let page_first = (touched.start + index) * PAGE_POSITIONS;
            let page = Arc::get_mut(&mut page[0].0).expect("a page that is not shared");
            let bytes = bytemuck::cast_slice_mut(&mut page.lines);
            for position in first.max(page_first)..end.min(page_first + PAGE_POSITIONS) {
                let row = position - first;
                let keys = &keys[row * key_width..(row + 1) * key_width];
                let values = &values[row * value_width..(row + 1) * value_width];
                place.write(layout.kv_type, bytes, position - page_first, keys, values);
            }
        });
    }

    /// One head of a page.
    pub(super) fn head(&self, layer: usize, page: usize, head: usize) -> PageHead<'_> {
        let layout = &self.home.layout;
        let place = layout.layers[layer].expect("a layer with keys of its own");
        let bytes: &[u8] = bytemuck::cast_slice(&self.pages[page].0.lines);
        let packed = |first: usize, dim: usize| {
            let length = head_bytes(layout.kv_type, dim);
            let bytes = &bytes[first + head * length..][..length];
            match layout.kv_type {
                KvType::F16 => Packed::F16(bytemuck::cast_slice(bytes)),
                KvType::Q8 => {
                    let (codes, scales) =
                        bytes.split_at(length - PAGE_POSITIONS * size_of::<f32>());
                    let codes = &bytemuck::cast_slice(codes)[..PAGE_POSITIONS * dim];
                    Packed::Q8(codes, bytemuck::cast_slice(scales))
                }
            }
        };
        PageHead {
            keys: packed(place.keys, place.key_dim),
            values: packed(place.values, place.value_dim),
        }
    }
}

impl LayerPlace {
    /// Writes the keys and values of one position of a page.
    fn write(
        &self,
        kv_type: KvType,
        page: &mut [u8],
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        for (head, numbers) in keys.chunks_exact(self.key_dim).enumerate() {
            let lane = |index| index * PAGE_POSITIONS + position;
            write_head(kv_type, page, self.keys, head, position, numbers, lane);
        }
        for (head, numbers) in values.chunks_exact(self.value_dim).enumerate() {
            let lane = |index| position * self.value_dim + index;
            write_head(kv_type, page, self.values, head, position, numbers, lane);
        }
    }
}

/// Writes the numbers of one head at one position; `lane` is the place of each in the head.
fn write_head(
    kv_type: KvType,
    page: &mut [u8],
    first: usize,
    head: usize,
    position: usize,
    numbers: &[f32],
    lane: impl Fn(usize) -> usize,
) {
    let length = head_bytes(kv_type, numbers.len());
    let bytes = &mut page[first + head * length..][..length];
    match kv_type {
        KvType::F16 => {
            let out: &mut [u16] = bytemuck::cast_slice_mut(bytes);
            pack_f16(numbers, |index, bits| out[lane(index)] = bits);
        }
        KvType::Q8 => {
            let (codes, scales) = bytes.split_at_mut(length - PAGE_POSITIONS * size_of::<f32>());
            let codes: &mut [i8] = bytemuck::cast_slice_mut(codes);
            let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
            scales[position] = pack_q8(numbers, |index, code| codes[lane(index)] = code);
        }
    }
}

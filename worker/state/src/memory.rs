//! One memory budget for all shards of a worker, and the options of their databases.
//!
//! I9: block cache and write buffers come out of one number of bytes, however many shards there are. Write buffers are charged to the
//! cache: when they grow, cached blocks make room. Not counted: what a running compaction holds (a few MiB per background thread) and the
//! table readers of open files (a few KiB each; indexes and filters lie in the cache).

use std::sync::Arc;

use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::state::StateError;
use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, DBCompressionType, DataBlockIndexType, Env, InfoLogger, LogLevel, Options, WriteBufferManager,
};

use crate::error::{Trouble, refused};
use crate::expiry::{FiledClock, remove_in_compactions};

/// The least budget that makes sense: with less, databases flush every few epochs.
pub const MEMORY_BYTES_MIN: usize = 4 << 20;

/// Write buffers get half of the budget. They turn many small epochs into one table file, and what a busy entity is written over never gets to
/// one: measured in a drain of the bench, half instead of a quarter saved two thirds of what compactions cost.
const WRITE_SHARE: usize = 2;

/// Of all write buffers, the most that one shard may fill before it flushes, so that one busy shard does not make all others flush small.
const SHARD_WRITE_SHARE: usize = 8;

/// Past 16 MiB a memtable's skip list costs every read more than larger table files save.
const SHARD_WRITE_BYTES_MAX: usize = 16 << 20;

/// One being filled, one being flushed, and one so that a checkpoint's flush finds room and `apply` need not wait for it.
const WRITE_BUFFERS_MAX: i32 = 3;

/// Files are what snapshots upload: small enough that a change re-uploads little, large enough that a shard of 10 GiB has some hundred.
const TABLE_FILE_BYTES: u64 = 32 << 20;

/// Open files per shard: 256 files of 32 MiB are 8 GiB, more than a shard should hold. A bound, not a reservation.
const OPEN_FILES_MAX: i32 = 256;

/// Level 1 holds about what four flushes of the largest write buffer bring.
const LEVEL_1_BYTES: u64 = 64 << 20;

/// Compaction starts at 4 files in level 0. Past 24 writes wait for it, for every read would search them all.
const LEVEL_0_FILES_MAX: i32 = 24;

/// What a compaction reads at once of each of its files. RocksDB's own 2 MiB for each of two dozen files are as much memory as the write buffers.
const COMPACTION_READ_BYTES: usize = 256 << 10;

/// Values of state are some hundred bytes: 8 KiB compress well and still decompress in microseconds.
const BLOCK_BYTES: usize = 8 << 10;

/// A false positive in a hundred: most look-ups of new entities end here.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// Of a write buffer, for the bloom filter over its keys.
const MEMTABLE_BLOOM_SHARE: f64 = 0.05;

/// The manifest is uploaded with every checkpoint; past this size RocksDB writes it anew, with the live files only.
const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// Memory and background threads for the databases of all shards of a worker, and how long entities live in them. Cheap to clone; clones share.
#[derive(Clone)]
pub struct SharedMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    shard_write_bytes: usize,
    env: Env,
    lifetimes: Lifetimes,
}

/// What the databases hold right now, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Cached blocks, indexes and filters, and the write buffers charged to them.
    pub cache_bytes: usize,
    /// Of these, what cannot be evicted now.
    pub pinned_bytes: usize,
    /// Write buffers.
    pub write_buffer_bytes: usize,
}

impl SharedMemory {
    /// A budget of `bytes_max` (at least [`MEMORY_BYTES_MIN`] is taken). The bound is on the cache with the write buffers in it; write
    /// buffers start to flush at half of it, and exceed that only while flushing is slower than writing, at most by three
    /// buffers per shard and those that are flushed and about to be freed, each a little larger than its share: it grows by whole blocks.
    ///
    /// `background_threads` compact; half as many (at least one) flush. RocksDB keeps these threads for the whole process: the last
    /// budget made decides how many there are. `Err` when RocksDB has no environment for this platform.
    pub fn new(bytes_max: usize, background_threads: usize) -> Result<Self, StateError> {
        let bytes_max = bytes_max.max(MEMORY_BYTES_MIN);
        let write_bytes = bytes_max / WRITE_SHARE;
        // Entry size 0: the cache's table grows by itself, for blocks, filters and charges differ in size too much for an estimate.
        let cache = Cache::new_hyper_clock_cache(bytes_max, 0);
        // Without stalling: a stalled writer would wait for shards that are idle and never flush.
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(write_bytes, false, cache.clone());
        let mut env = Env::new().map_err(|e| refused("prepare RocksDB's environment", &e))?;
        let threads = i32::try_from(background_threads.clamp(1, 64)).expect("64 fits");
        env.set_low_priority_background_threads(threads);
        env.set_high_priority_background_threads((threads / 2).max(1));
        let shard_write_bytes = (write_bytes / SHARD_WRITE_SHARE).min(SHARD_WRITE_BYTES_MAX);
        Ok(Self { cache, write_buffers, shard_write_bytes, env, lifetimes: Lifetimes::default() })
    }

    /// The same, for databases that drop entities which are over.
    #[must_use]
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// What is in use, for metrics.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            cache_bytes: self.cache.get_usage(),
            pinned_bytes: self.cache.get_pinned_usage(),
            write_buffer_bytes: self.write_buffers.get_usage(),
        }
    }

    /// The options of a shard's database, which reports to `trouble`; what is over by `clock` may go.
    pub(crate) fn options(&self, trouble: &Arc<Trouble>, clock: &FiledClock) -> Options {
        let mut options = quiet_options(trouble.clone());
        remove_in_compactions(&mut options, &self.lifetimes, clock);
        options.set_env(&self.env);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_write_buffer_size(self.shard_write_bytes);
        // The default of 1 MiB would count whole for every shard that has written a single key.
        options.set_arena_block_size(128 << 10);
        options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_SHARE);
        options.set_memtable_whole_key_filtering(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_target_file_size_base(TABLE_FILE_BYTES);
        options.set_max_bytes_for_level_base(LEVEL_1_BYTES);
        options.set_level_compaction_dynamic_level_bytes(true);
        // Writes go on or wait, nothing between: RocksDB's slowing down counts each attempt of a writer that does not want to block as a
        // write, so that trying again would put the end off for ever (see `RocksState::apply`).
        options.set_level_zero_slowdown_writes_trigger(LEVEL_0_FILES_MAX);
        options.set_level_zero_stop_writes_trigger(LEVEL_0_FILES_MAX);
        options.set_soft_pending_compaction_bytes_limit(0);
        options.set_compaction_readahead_size(COMPACTION_READ_BYTES);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
        // The default of 4 MiB would be reserved on disk for every shard.
        options.set_manifest_preallocation_size(64 << 10);
        // Written back while it is written, so that the sync at a table file's end does not hold up other shards' disk.
        options.set_bytes_per_sync(1 << 20);
        // Old files are deleted by a background thread, never by the shard's.
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_block_based_table_factory(&self.tables());
        options
    }

    fn tables(&self) -> BlockBasedOptions {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&self.cache);
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        tables.set_block_size(BLOCK_BYTES);
        tables.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        // Both pinned: a newer RocksDB must not begin to write what the image before it cannot read. XXH3 needs no CPU feature to be fast;
        // from format 6 on a block's checksum also knows its place, so that a block in the wrong file or spot is seen.
        tables.set_format_version(6);
        tables.set_checksum_type(ChecksumType::XXH3);
        tables
    }
}

/// Options that every way of opening shares: no log files, no statistics files, no thread that dumps them.
pub(crate) fn quiet_options(trouble: Arc<Trouble>) -> Options {
    let mut options = Options::default();
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, move |level, message| match level {
        // The header lists all options at each opening.
        LogLevel::Debug | LogLevel::Info | LogLevel::Header => {}
        LogLevel::Warn => tracing::warn!("rocksdb: {}", message.trim_end()),
        LogLevel::Error | LogLevel::Fatal => {
            trouble.report(message.trim_end());
            tracing::error!("rocksdb: {}", message.trim_end());
        }
    }));
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_paranoid_checks(true);
    options
}

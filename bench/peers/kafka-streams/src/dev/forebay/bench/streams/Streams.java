package dev.forebay.bench.streams;

import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.CompressionType;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.WriteBufferManager;

/** What the jobs have in common. Settings come as system properties `bench.*`; see peer.py. */
public final class Streams {
  private Streams() {}

  /** One block cache for all stores, bloom filters, and LZ4. Where memory is limited, memtables and indexes count towards the cache. */
  public static final class StoreSettings implements RocksDBConfigSetter {
    private static final long LIMIT_MB = Long.parseLong(setting("rocksdb.mb"));
    private static final Cache CACHE = new LRUCache((LIMIT_MB == 0 ? 256 : LIMIT_MB) << 20);
    private static final WriteBufferManager MEMTABLES = new WriteBufferManager(LIMIT_MB << 19, CACHE);

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
      BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
      table.setBlockCache(CACHE);
      table.setFilterPolicy(new BloomFilter(10));
      table.setBlockSize(8 << 10);
      if (LIMIT_MB > 0) {
        table.setCacheIndexAndFilterBlocks(true);
        options.setWriteBufferManager(MEMTABLES);
      }
      options.setTableFormatConfig(table);
      options.setCompressionType(CompressionType.LZ4_COMPRESSION);
      options.setWriteBufferSize(16 << 20);
      options.setMaxWriteBufferNumber(3);
    }

    @Override
    public void close(String store, Options options) {}
  }

  /** From the input through one processor to the outputs, whose names are those of the processor's children. */
  static Topology topology(ProcessorSupplier<byte[], byte[], byte[], byte[]> processor, String... outputs) {
    Topology topology = new Topology();
    topology.addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(), setting("input"));
    topology.addProcessor("work", processor, "events");
    for (String output : outputs) {
      topology.addSink(output, setting(output), new ByteArraySerializer(), new ByteArraySerializer(), "work");
    }
    return topology;
  }

  /** With a cache and a changelog topic. */
  static StoreBuilder<KeyValueStore<byte[], byte[]>> store(String name) {
    return Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(name), Serdes.ByteArray(), Serdes.ByteArray())
        .withCachingEnabled()
        .withLoggingEnabled(Map.of("segment.bytes", "134217728"));
  }

  /** Until the process is killed. */
  static void run(Topology topology) throws InterruptedException {
    KafkaStreams streams = new KafkaStreams(topology, properties());
    streams.setStateListener((now, before) -> System.out.println("state " + before + " -> " + now));
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    streams.start();
    Thread.sleep(Long.MAX_VALUE);
  }

  private static Properties properties() {
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, setting("application"));
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, setting("brokers"));
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, setting("commit.ms"));
    p.put(StreamsConfig.STATE_DIR_CONFIG, setting("state"));
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, setting("threads"));
    p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
    p.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, StoreSettings.class);
    p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5000);
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
    // How soon a crash is noticed: with the default of 45 s a restart waits that long.
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 1500);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), setting("linger.ms"));
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
    return p;
  }

  static String setting(String name) {
    String value = System.getProperty("bench." + name);
    if (value == null) throw new IllegalArgumentException("start with -Dbench." + name + "=...");
    return value;
  }
}

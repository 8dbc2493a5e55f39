package dev.forebay.bench.streams;

import dev.forebay.bench.action.Delta;
import dev.forebay.bench.action.Event;
import dev.forebay.bench.action.Json;
import dev.forebay.bench.action.Profile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
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
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.CompressionType;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/** The workload `action` on Kafka Streams. Settings come as system properties `bench.*`; see peer.py. */
public final class ActionJob {
  private static final String STORE = "profiles";

  /** One block cache for all stores, bloom filters, and LZ4. */
  public static final class StoreSettings implements RocksDBConfigSetter {
    private static final Cache CACHE = new LRUCache(256L << 20);

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
      BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
      table.setBlockCache(CACHE);
      table.setFilterPolicy(new BloomFilter(10));
      table.setBlockSize(8 << 10);
      options.setTableFormatConfig(table);
      options.setCompressionType(CompressionType.LZ4_COMPRESSION);
      options.setWriteBufferSize(16 << 20);
      options.setMaxWriteBufferNumber(3);
    }

    @Override
    public void close(String store, Options options) {}
  }

  private static final class ProfileProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private final Json json = new Json();
    private final Profile profile = new Profile();
    private final Delta delta = new Delta();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      Event event = json.parse(record.value());
      if (event == null) {
        context.forward(record, "rejected");
        return;
      }
      profile.read(store.get(record.key()));
      if (!profile.apply(event)) return;
      store.put(record.key(), profile.write());
      try {
        String key = new String(record.key(), StandardCharsets.UTF_8);
        context.forward(record.withValue(json.write(delta.of(key, event, profile))), "updates");
        event.profile = profile.fields();
        context.forward(record.withValue(json.write(event)), "enriched");
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    Topology topology = new Topology();
    topology.addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(), setting("input"));
    topology.addProcessor("profile", ProfileProcessor::new, "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), Serdes.ByteArray())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of("segment.bytes", "134217728")),
        "profile");
    for (String output : new String[] {"updates", "enriched", "rejected"}) {
      topology.addSink(output, setting(output), new ByteArraySerializer(), new ByteArraySerializer(), "profile");
    }

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

  private static String setting(String name) {
    String value = System.getProperty("bench." + name);
    if (value == null) throw new IllegalArgumentException("start with -Dbench." + name + "=...");
    return value;
  }
}

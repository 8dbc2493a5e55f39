package dev.forebay.bench.flink;

import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.typeutils.TupleTypeInfo;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** What the jobs have in common. Settings come as system properties `bench.*`; see peer.py. */
final class Jobs {
  static final TypeInformation<Tuple2<String, byte[]>> RECORD =
      new TupleTypeInfo<>(Types.STRING, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

  private Jobs() {}

  private static final class KeyAndValue implements KafkaRecordDeserializationSchema<Tuple2<String, byte[]>> {
    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, byte[]>> out) {
      out.collect(Tuple2.of(new String(record.key(), StandardCharsets.UTF_8), record.value()));
    }

    @Override
    public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
      return RECORD;
    }
  }

  private static final class ToTopic implements KafkaRecordSerializationSchema<Tuple2<String, byte[]>> {
    private final String topic;

    ToTopic(String topic) {
      this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(Tuple2<String, byte[]> record, KafkaSinkContext context, Long time) {
      return new ProducerRecord<>(topic, record.f0.getBytes(StandardCharsets.UTF_8), record.f1);
    }
  }

  /** With exactly-once checkpoints. */
  static StreamExecutionEnvironment environment() {
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(setting("threads")), configuration());
    environment.enableCheckpointing(Long.parseLong(setting("commit.ms")), CheckpointingMode.EXACTLY_ONCE);
    environment.getCheckpointConfig().setCheckpointTimeout(300_000);
    environment.setBufferTimeout(20);
    return environment;
  }

  /** The input's keys and values. */
  static DataStream<Tuple2<String, byte[]>> events(StreamExecutionEnvironment environment) {
    KafkaSource<Tuple2<String, byte[]>> source =
        KafkaSource.<Tuple2<String, byte[]>>builder()
            .setBootstrapServers(setting("brokers"))
            .setTopics(setting("input"))
            .setGroupId(setting("application"))
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new KeyAndValue())
            .setProperty("isolation.level", "read_committed")
            .setProperty("max.poll.records", "5000")
            .build();
    return environment.fromSource(source, WatermarkStrategy.noWatermarks(), "events").uid("events");
  }

  static OutputTag<Tuple2<String, byte[]>> tag(String output) {
    return new OutputTag<>(output, RECORD);
  }

  /** What came out for this tag goes to the topic of its name. */
  static void sinkSideOutput(SingleOutputStreamOperator<Tuple2<String, byte[]>> from, OutputTag<Tuple2<String, byte[]>> tag) {
    from.getSideOutput(tag).sinkTo(sink(tag.getId())).uid(tag.getId());
  }

  private static Configuration configuration() {
    String folder = setting("state");
    Configuration c = new Configuration();
    c.setString("state.backend.type", "rocksdb");
    c.setString("state.backend.rocksdb.localdir", folder + "/rocksdb");
    c.setString("state.backend.rocksdb.use-bloom-filter", "true");
    c.setString("state.backend.rocksdb.compression.per.level", "LZ4_COMPRESSION");
    c.setString("execution.checkpointing.incremental", "true");
    c.setString("execution.checkpointing.dir", "file://" + folder + "/checkpoints");
    c.setString("execution.checkpointing.num-retained", "2");
    c.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
    c.setString("taskmanager.memory.managed.size", "512m");
    c.setString("taskmanager.memory.network.min", "128m");
    c.setString("taskmanager.memory.network.max", "128m");
    c.setString("taskmanager.numberOfTaskSlots", setting("threads"));
    c.setString("pipeline.object-reuse", "true");
    c.setString("rest.address", "127.0.0.1");
    c.setString("rest.bind-address", "127.0.0.1");
    String restore = System.getProperty("bench.restore", "");
    if (!restore.isEmpty()) c.setString("execution.state-recovery.path", restore);
    return c;
  }

  static KafkaSink<Tuple2<String, byte[]>> sink(String output) {
    Properties p = new Properties();
    p.put("compression.type", "lz4");
    p.put("linger.ms", setting("linger.ms"));
    p.put("batch.size", "262144");
    p.put("buffer.memory", "67108864");
    p.put("transaction.timeout.ms", "600000");
    return KafkaSink.<Tuple2<String, byte[]>>builder()
        .setBootstrapServers(setting("brokers"))
        .setRecordSerializer(new ToTopic(setting(output)))
        .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .setTransactionalIdPrefix(setting("application") + "-" + output)
        .setKafkaProducerConfig(p)
        .build();
  }

  static String setting(String name) {
    String value = System.getProperty("bench." + name);
    if (value == null) throw new IllegalArgumentException("start with -Dbench." + name + "=...");
    return value;
  }
}

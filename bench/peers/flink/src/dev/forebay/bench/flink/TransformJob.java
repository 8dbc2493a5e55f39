package dev.forebay.bench.flink;

import dev.forebay.bench.transform.Event;
import dev.forebay.bench.transform.Json;
import dev.forebay.bench.transform.Mapped;
import java.io.IOException;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** The workload `transform` on Flink. */
public final class TransformJob {
  private static final String MAIN = "browsing";
  private static final Map<String, OutputTag<Tuple2<String, byte[]>>> OTHERS =
      Stream.of("carts", "orders", "accounts", "rejected").collect(Collectors.toMap(Function.identity(), Jobs::tag));

  private static final class MappingFunction extends ProcessFunction<Tuple2<String, byte[]>, Tuple2<String, byte[]>> {
    private transient Json json;
    private transient Mapped mapped;

    @Override
    public void open(OpenContext context) {
      json = new Json();
      mapped = new Mapped();
    }

    @Override
    public void processElement(Tuple2<String, byte[]> record, Context context, Collector<Tuple2<String, byte[]>> out)
        throws IOException {
      Event event = json.parse(record.f1);
      if (event == null) {
        context.output(OTHERS.get("rejected"), record);
        return;
      }
      String output = mapped.of(event).output();
      if (output == null) return;
      Tuple2<String, byte[]> result = Tuple2.of(record.f0, json.write(mapped));
      if (output.equals(MAIN)) {
        out.collect(result);
      } else {
        context.output(OTHERS.get(output), result);
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    StreamExecutionEnvironment environment = Jobs.environment();
    SingleOutputStreamOperator<Tuple2<String, byte[]>> mapped =
        Jobs.events(environment).process(new MappingFunction(), Jobs.RECORD).uid("mapped");
    mapped.sinkTo(Jobs.sink(MAIN)).uid(MAIN);
    OTHERS.values().forEach(tag -> Jobs.sinkSideOutput(mapped, tag));
    environment.execute(Jobs.setting("application"));
  }
}

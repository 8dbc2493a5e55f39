package dev.forebay.bench.flink;

import dev.forebay.bench.action.Delta;
import dev.forebay.bench.action.Event;
import dev.forebay.bench.action.Json;
import dev.forebay.bench.action.Profile;
import java.io.IOException;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** The workload `action` on Flink. */
public final class ActionJob {
  private static final OutputTag<Tuple2<String, byte[]>> UPDATES = Jobs.tag("updates");
  private static final OutputTag<Tuple2<String, byte[]>> REJECTED = Jobs.tag("rejected");

  private static final class ProfileFunction
      extends KeyedProcessFunction<String, Tuple2<String, byte[]>, Tuple2<String, byte[]>> {
    private transient ValueState<byte[]> state;
    private transient Json json;
    private transient Profile profile;
    private transient Delta delta;

    @Override
    public void open(OpenContext context) {
      state =
          getRuntimeContext()
              .getState(new ValueStateDescriptor<>("profiles", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
      json = new Json();
      profile = new Profile();
      delta = new Delta();
    }

    @Override
    public void processElement(Tuple2<String, byte[]> record, Context context, Collector<Tuple2<String, byte[]>> out)
        throws IOException {
      Event event = json.parse(record.f1);
      if (event == null) {
        context.output(REJECTED, record);
        return;
      }
      profile.read(state.value());
      if (!profile.apply(event)) return;
      state.update(profile.write());
      context.output(UPDATES, Tuple2.of(record.f0, json.write(delta.of(record.f0, event, profile))));
      event.profile = profile.fields();
      out.collect(Tuple2.of(record.f0, json.write(event)));
    }
  }

  public static void main(String[] arguments) throws Exception {
    StreamExecutionEnvironment environment = Jobs.environment();
    SingleOutputStreamOperator<Tuple2<String, byte[]>> enriched =
        Jobs.events(environment)
            .keyBy(record -> record.f0, Types.STRING)
            .process(new ProfileFunction(), Jobs.RECORD)
            .uid("profiles");
    enriched.sinkTo(Jobs.sink("enriched")).uid("enriched");
    Jobs.sinkSideOutput(enriched, UPDATES);
    Jobs.sinkSideOutput(enriched, REJECTED);
    environment.execute(Jobs.setting("application"));
  }
}

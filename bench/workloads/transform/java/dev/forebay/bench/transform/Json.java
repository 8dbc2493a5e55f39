package dev.forebay.bench.transform;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;

/** The workload's records as JSON. */
public final class Json {
  private final ObjectReader events;
  private final ObjectWriter mapped;

  public Json() {
    ObjectMapper mapper = new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);
    events = mapper.readerFor(Event.class);
    mapped = mapper.writerFor(Mapped.class);
  }

  /** Null when it is no valid event. */
  public Event parse(byte[] value) {
    try {
      Event event = events.readValue(value);
      return event.isValid() ? event : null;
    } catch (IOException malformed) {
      return null;
    }
  }

  public byte[] write(Mapped record) throws IOException {
    return mapped.writeValueAsBytes(record);
  }
}

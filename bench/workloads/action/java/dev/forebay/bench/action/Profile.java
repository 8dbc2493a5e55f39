package dev.forebay.bench.action;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** A user's profile, used again for each event, and its compact binary form. */
public final class Profile {
  private static final String[] TYPES = {
    "page_view", "click", "add_to_cart", "purchase", "search", "login", "signup", "refund"
  };
  private static final Map<String, Integer> TYPE_NUMBERS = new HashMap<>();
  /** How many event ids of a user are remembered to find duplicates. */
  private static final int RECENT_MAX = 64;
  /** More than any profile takes: 64 ids of 16 bytes, and strings of at most 255 bytes. */
  private static final int BYTES_MAX = 32 << 10;

  static {
    for (int i = 0; i < TYPES.length; i++) TYPE_NUMBERS.put(TYPES[i], i);
  }

  long lastSeen;
  int total;
  boolean hasNewDevice;
  private final int[] counters = new int[TYPES.length];
  private final long[] recentHigh = new long[RECENT_MAX];
  private final long[] recentLow = new long[RECENT_MAX];
  private int recentCount;
  private int recentOldest;
  private final List<String> devices = new ArrayList<>();
  private final Event.Attributes attributes = new Event.Attributes();
  private final ByteBuffer buffer = ByteBuffer.allocate(BYTES_MAX);

  /** Becomes the profile of these bytes; without any, an empty one. */
  public void read(byte[] bytes) {
    devices.clear();
    if (bytes == null) {
      lastSeen = 0;
      total = 0;
      recentCount = 0;
      recentOldest = 0;
      Arrays.fill(counters, 0);
      return;
    }
    ByteBuffer from = ByteBuffer.wrap(bytes);
    lastSeen = from.getLong();
    total = from.getInt();
    for (int i = 0; i < counters.length; i++) counters[i] = from.getInt();
    recentCount = from.get();
    recentOldest = from.get();
    for (int i = 0; i < recentCount; i++) {
      recentHigh[i] = from.getLong();
      recentLow[i] = from.getLong();
    }
    int deviceCount = from.get();
    for (int i = 0; i < deviceCount; i++) devices.add(readText(from));
    attributes.amount = from.getDouble();
    attributes.page = readText(from);
    attributes.referrer = readText(from);
    attributes.currency = readText(from);
    attributes.sku = readText(from);
    attributes.campaign = readText(from);
  }

  public byte[] write() {
    buffer.clear();
    buffer.putLong(lastSeen).putInt(total);
    for (int counter : counters) buffer.putInt(counter);
    buffer.put((byte) recentCount).put((byte) recentOldest);
    for (int i = 0; i < recentCount; i++) buffer.putLong(recentHigh[i]).putLong(recentLow[i]);
    buffer.put((byte) devices.size());
    for (String device : devices) writeText(device);
    buffer.putDouble(attributes.amount);
    writeText(attributes.page);
    writeText(attributes.referrer);
    writeText(attributes.currency);
    writeText(attributes.sku);
    writeText(attributes.campaign);
    return Arrays.copyOf(buffer.array(), buffer.position());
  }

  /** False when the event was seen before; then nothing changed. */
  public boolean apply(Event event) {
    UUID id = UUID.fromString(event.event_id);
    long high = id.getMostSignificantBits();
    long low = id.getLeastSignificantBits();
    for (int i = 0; i < recentCount; i++) {
      if (recentHigh[i] == high && recentLow[i] == low) return false;
    }
    int place = recentOldest;
    if (recentCount < RECENT_MAX) {
      place = recentCount++;
    } else {
      recentOldest = (recentOldest + 1) % RECENT_MAX;
    }
    recentHigh[place] = high;
    recentLow[place] = low;

    lastSeen = Math.max(lastSeen, event.ts);
    total++;
    Integer type = TYPE_NUMBERS.get(event.type);
    if (type != null) counters[type]++;
    hasNewDevice = !devices.contains(event.identifiers.device);
    if (hasNewDevice) devices.add(event.identifiers.device);
    attributes.page = event.attrs.page;
    attributes.referrer = event.attrs.referrer;
    attributes.amount = event.attrs.amount;
    attributes.currency = event.attrs.currency;
    attributes.sku = event.attrs.sku;
    attributes.campaign = event.attrs.campaign;
    return true;
  }

  public Event.ProfileFields fields() {
    Event.ProfileFields fields = new Event.ProfileFields();
    fields.last_seen = lastSeen;
    fields.total = total;
    fields.devices = devices;
    return fields;
  }

  int counterOf(String type) {
    Integer number = TYPE_NUMBERS.get(type);
    return number == null ? 0 : counters[number];
  }

  private static String readText(ByteBuffer from) {
    int length = from.get() & 0xff;
    String text = new String(from.array(), from.position(), length, StandardCharsets.ISO_8859_1);
    from.position(from.position() + length);
    return text;
  }

  private void writeText(String text) {
    byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
    buffer.put((byte) bytes.length).put(bytes);
  }
}

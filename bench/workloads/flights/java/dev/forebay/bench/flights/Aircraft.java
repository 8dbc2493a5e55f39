package dev.forebay.bench.flights;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** All that is known of an aircraft, and its form in a state store. One object is used for all of them, one after the other. */
public final class Aircraft {
  private static final int RECENT_MAX = 64;
  // 64 ids and all the airports there are.
  private static final int BYTES_MAX = 8192;

  private String carrier;
  private String lastAirport;
  private String lastSeen;
  private int flights;
  private long distance;
  private int worstDelay;
  private List<String> airports = new ArrayList<>();
  /** What the last flight has changed. */
  private final Delta delta = new Delta();

  private int recentCount;
  private int recentOldest;
  private final long[] recent = new long[RECENT_MAX];
  private final ByteBuffer buffer = ByteBuffer.allocate(BYTES_MAX);

  /** Becomes the aircraft of these bytes; without any, an unknown one. */
  public void read(byte[] bytes) {
    airports = new ArrayList<>();
    if (bytes == null) {
      carrier = null;
      lastAirport = null;
      lastSeen = null;
      flights = 0;
      distance = 0;
      recentCount = 0;
      recentOldest = 0;
      return;
    }
    ByteBuffer from = ByteBuffer.wrap(bytes);
    carrier = readText(from);
    lastAirport = readText(from);
    lastSeen = readText(from);
    flights = from.getInt();
    distance = from.getLong();
    worstDelay = from.getInt();
    recentCount = from.get();
    recentOldest = from.get();
    for (int i = 0; i < recentCount; i++) recent[i] = from.getLong();
    int count = from.get() & 0xff;
    for (int i = 0; i < count; i++) airports.add(readText(from));
  }

  public byte[] write() {
    buffer.clear();
    writeText(carrier);
    writeText(lastAirport);
    writeText(lastSeen);
    buffer.putInt(flights).putLong(distance).putInt(worstDelay).put((byte) recentCount).put((byte) recentOldest);
    for (int i = 0; i < recentCount; i++) buffer.putLong(recent[i]);
    buffer.put((byte) airports.size());
    for (String airport : airports) writeText(airport);
    byte[] bytes = new byte[buffer.position()];
    buffer.flip().get(bytes);
    return bytes;
  }

  /** False when the flight was seen before; then nothing changed. */
  public boolean apply(Flight flight) {
    if (!remember(hash(flight.id))) return false;
    boolean isFirst = flights == 0;
    delta.key = flight.tailnum;
    delta.set.carrier = isFirst || !same(carrier, flight.carrier) ? flight.carrier : null;
    delta.set.last_airport = flight.dest.equals(lastAirport) ? null : flight.dest;
    delta.set.last_seen = flight.time.equals(lastSeen) ? null : flight.time;
    carrier = flight.carrier;
    lastAirport = flight.dest;
    lastSeen = flight.time;
    delta.set.flights = ++flights;
    delta.set.distance = distance += flight.distance;
    boolean isWorse = isFirst || flight.dep_delay > worstDelay;
    if (isWorse) worstDelay = flight.dep_delay;
    delta.set.worst_delay = isWorse ? worstDelay : null;
    boolean isNew = !airports.contains(flight.dest);
    if (isNew) airports.add(flight.dest);
    delta.addToSet = isNew ? new Delta.AddedAirports(flight.dest) : null;
    return true;
  }

  public Delta delta() {
    return delta;
  }

  public Flight.AircraftFields fields() {
    Flight.AircraftFields fields = new Flight.AircraftFields();
    fields.flights = flights;
    fields.distance = distance;
    fields.airports = airports;
    fields.worst_delay = worstDelay;
    return fields;
  }

  private boolean remember(long id) {
    for (int i = 0; i < recentCount; i++) {
      if (recent[i] == id) return false;
    }
    if (recentCount < RECENT_MAX) {
      recent[recentCount++] = id;
    } else {
      recent[recentOldest] = id;
      recentOldest = (recentOldest + 1) % RECENT_MAX;
    }
    return true;
  }

  /** FNV-1a, 64 bits. */
  private static long hash(String text) {
    long hash = 0xcbf29ce484222325L;
    for (int i = 0; i < text.length(); i++) hash = (hash ^ text.charAt(i)) * 0x100000001b3L;
    return hash;
  }

  private static boolean same(String one, String other) {
    return one == null ? other == null : one.equals(other);
  }

  private static String readText(ByteBuffer from) {
    int length = from.get();
    if (length < 0) return null;
    String text = new String(from.array(), from.position(), length, StandardCharsets.ISO_8859_1);
    from.position(from.position() + length);
    return text;
  }

  /** At most 127 characters; -1 for none. */
  private void writeText(String text) {
    if (text == null) {
      buffer.put((byte) -1);
      return;
    }
    byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
    buffer.put((byte) bytes.length).put(bytes);
  }
}

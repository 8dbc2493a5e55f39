package dev.forebay.bench.action;

import com.fasterxml.jackson.annotation.JsonAnyGetter;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/** What an event changed in a profile, in the format of Forebay's deltas: applying it twice gives the same profile. */
@JsonPropertyOrder({"table", "key", "set", "addToSet"})
@JsonInclude(JsonInclude.Include.NON_NULL)
public final class Delta {
  public final String table = "profiles";
  public String key;
  public final SetFields set = new SetFields();
  public AddedDevices addToSet;

  @JsonPropertyOrder({"attrs", "last_seen", "total"})
  public static final class SetFields {
    public Event.Attributes attrs;
    public long last_seen;
    public int total;
    private Map<String, Integer> counter;

    @JsonAnyGetter
    public Map<String, Integer> counter() {
      return counter;
    }
  }

  public static final class AddedDevices {
    public List<String> devices;
  }

  public Delta of(String key, Event event, Profile profile) {
    this.key = key;
    set.attrs = event.attrs;
    set.last_seen = profile.lastSeen;
    set.total = profile.total;
    set.counter = Collections.singletonMap(event.type, profile.counterOf(event.type));
    addToSet = null;
    if (profile.hasNewDevice) {
      addToSet = new AddedDevices();
      addToSet.devices = Collections.singletonList(event.identifiers.device);
    }
    return this;
  }
}

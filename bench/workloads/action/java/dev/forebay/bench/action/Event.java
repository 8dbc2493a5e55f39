package dev.forebay.bench.action;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import java.util.List;

/** A record of the input; with `profile` it is one of the topic `enriched`. */
@JsonPropertyOrder({"tenant", "user", "event_id", "ts", "sent_us", "type", "attrs", "identifiers", "pad", "profile"})
@JsonInclude(JsonInclude.Include.NON_NULL)
public final class Event {
  public String tenant;
  public String user;
  public String event_id;
  public Long ts;
  public long sent_us;
  public String type;
  public Attributes attrs;
  public Identifiers identifiers;
  /** What makes records larger in the measure `growth`. */
  public String pad;
  public ProfileFields profile;

  @JsonPropertyOrder({"page", "referrer", "amount", "currency", "sku", "campaign"})
  public static final class Attributes {
    public String page;
    public String referrer;
    public double amount;
    public String currency;
    public String sku;
    public String campaign;
  }

  public static final class Identifiers {
    public String email;
    public String device;
  }

  /** What the profile adds to an event. */
  @JsonPropertyOrder({"last_seen", "total", "devices"})
  public static final class ProfileFields {
    public long last_seen;
    public int total;
    public List<String> devices;
  }

  public boolean isValid() {
    return tenant != null && user != null && event_id != null && ts != null && type != null && attrs != null
        && identifiers != null && identifiers.device != null;
  }
}

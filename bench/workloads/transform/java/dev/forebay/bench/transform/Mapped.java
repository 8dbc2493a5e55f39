package dev.forebay.bench.transform;

import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import java.util.Locale;

/** A record of the outputs. */
@JsonPropertyOrder({"tenant", "user", "event_id", "ts", "sent_us", "attrs", "identifiers", "kind", "cents", "domain", "channel", "campaign"})
public final class Mapped {
  public String tenant;
  public String user;
  public String event_id;
  public long ts;
  public long sent_us;
  public final Attributes attrs = new Attributes();
  public final Identifiers identifiers = new Identifiers();
  public String kind;
  public long cents;
  public String domain;
  public String channel;
  public String campaign;

  @JsonPropertyOrder({"page", "referrer", "currency", "sku"})
  public static final class Attributes {
    public String page;
    public String referrer;
    public String currency;
    public String sku;
  }

  public static final class Identifiers {
    public String device;
  }

  /** Becomes what this event is mapped to. */
  public Mapped of(Event event) {
    tenant = event.tenant;
    user = event.user;
    event_id = event.event_id;
    ts = event.ts;
    sent_us = event.sent_us;
    attrs.page = event.attrs.page;
    attrs.referrer = event.attrs.referrer;
    attrs.currency = event.attrs.currency;
    attrs.sku = event.attrs.sku;
    identifiers.device = event.identifiers.device;
    kind = event.type.toUpperCase(Locale.ROOT);
    cents = Math.round(event.attrs.amount * 100);
    domain = event.identifiers.email.substring(event.identifiers.email.indexOf('@') + 1);
    channel = event.attrs.referrer.equals("direct") ? "direct" : "referred";
    campaign = event.attrs.campaign.replace('-', '_');
    return this;
  }

  /** The output that it goes to; null for none. */
  public String output() {
    return switch (kind) {
      case "PAGE_VIEW", "CLICK", "SEARCH" -> "browsing";
      case "ADD_TO_CART" -> "carts";
      case "PURCHASE", "REFUND" -> "orders";
      case "LOGIN", "SIGNUP" -> "accounts";
      default -> null;
    };
  }
}

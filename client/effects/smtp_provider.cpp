// SPDX-License-Identifier: Apache-2.0
#include "outbox/smtp_provider.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "client/effects/digest.h"
#include "client/effects/curl_request.h"
#include "common/hex.h"

namespace outbox {
inline namespace v1 {
namespace {

using effects::CurlRequest;

constexpr std::size_t message_id_digits = 32;
constexpr std::size_t queue_id_bytes_max = 200;

[[noreturn]] void wrong(const std::string& what) { throw std::invalid_argument("SMTP provider: " + what); }

// An address as it may stand between < and >. Whatever could end it there would be a command of its own.
bool valid_address(std::string_view address) {
  const std::size_t at = address.rfind('@');
  return at != std::string_view::npos && at > 0 && at + 1 < address.size() && !effects::has_control(address) &&
         address.find_first_of(" <>,;\"\\") == std::string_view::npos;
}

bool valid_domain(const std::string& domain) {
  return !domain.empty() && !effects::has_control(domain) && domain.find_first_of(" <>@/?#%") == std::string::npos;
}

SmtpOptions checked(SmtpOptions options) {
  const std::string origin = effects::origin_of(options.url);
  const bool tls = origin.starts_with("smtps://");
  if (!tls && !origin.starts_with("smtp://")) {
    wrong("url is no smtp:// or smtps:// URL. HINT: set it to something like smtp://mail.example.com:587");
  }
  if (options.url.find_first_of("@?#;") != std::string::npos || effects::has_control(options.url)) {
    wrong("url has more than a host and a port. HINT: put credentials into username and password");
  }
  if (options.username.empty() != options.password.empty()) wrong("one of username and password is missing. HINT: set both or none");
  if (!options.username.empty() && !tls && !options.require_tls) {
    wrong("a password would be sent in the clear. HINT: set require_tls, or use smtps://");
  }
  if (!options.from.empty() && !valid_address(options.from)) wrong("from is no address. HINT: use the bare form, shop@example.com");
  if (!options.helo_name.empty() && !valid_domain(options.helo_name)) wrong("helo_name is no name of a host. HINT: like app.example.com");
  if (!options.message_id_domain.empty() && !valid_domain(options.message_id_domain)) {
    wrong("message_id_domain is no domain. HINT: like example.com");
  }
  // libcurl takes the name for EHLO from the path.
  options.url = origin + "/" + options.helo_name;
  return options;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos ? "" : std::string(text.substr(begin, text.find_last_not_of(" \t") + 1 - begin));
}

// CR, LF and CRLF all become CRLF: with a bare one, two servers on the way could see the end of the message in two places.
std::string with_crlf(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 32);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    if (text[i] == '\r' || text[i] == '\n') {
      out += "\r\n";
    } else {
      out += text[i];
    }
  }
  if (!out.ends_with("\r\n")) out += "\r\n";
  return out;
}

bool has_message_id(std::string_view message) {
  constexpr std::string_view name = "message-id";
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  for (std::size_t at = 0; at < message.size() && message.substr(at, 2) != "\r\n";) {
    const std::string_view line = message.substr(at, message.find("\r\n", at) - at);
    const std::size_t end = line.find_first_of(": \t");
    if (end == name.size() && std::equal(name.begin(), name.end(), line.begin(), [&](char a, char b) { return same(b, a); })) return true;
    at += line.size() + 2;
  }
  return false;
}

// A message that can be sent, or `fault`.
struct MailMessage {
  std::string fault{};
  std::string from{};
  std::vector<std::string> to{};
  std::string message_id{};
  std::string text{};
};

MailMessage letter_of(const Request& request, const SmtpOptions& options) {
  MailMessage letter;
  const auto target = [&](const char* name) { return request.target.contains(name) ? request.target.at(name) : std::string(); };
  letter.from = request.target.contains("from") ? trimmed(target("from")) : options.from;
  if (!valid_address(letter.from)) return {"target from is no address. HINT: use the bare form, shop@example.com"};
  const std::string to = target("to");
  for (std::size_t at = 0; at <= to.size();) {
    const std::size_t comma = std::min(to.find(',', at), to.size());
    letter.to.push_back(trimmed(std::string_view(to).substr(at, comma - at)));
    if (!valid_address(letter.to.back())) {
      return {"target to has something that is no address. HINT: use bare addresses with commas between, a@example.com, b@example.com"};
    }
    at = comma + 1;
  }
  if (request.provider_key.empty()) return {"the provider key is empty. HINT: the Message-ID is made of it"};
  letter.text = with_crlf(request.body);
  if (has_message_id(letter.text)) {
    return {"the message has a Message-ID. HINT: leave it out; it is made of the provider key, so that a repeat carries the same one"};
  }
  if (letter.text.starts_with(' ') || letter.text.starts_with('\t')) {
    return {"the message begins with a blank, which would make it a part of the Message-ID. HINT: begin with a header field"};
  }
  const std::string domain = options.message_id_domain.empty() ? letter.from.substr(letter.from.rfind('@') + 1) : options.message_id_domain;
  letter.message_id = "<" + common::hex(effects::sha256(request.provider_key)).substr(0, message_id_digits) + "@" + domain + ">";
  letter.text.insert(0, "Message-ID: " + letter.message_id + "\r\n");
  return letter;
}

// Follows the dialogue: which reply answers the newest command, and whether the dot was written.
class Dialogue {
 public:
  Dialogue(CurlRequest& transfer, std::string_view text) : request_(transfer), text_(text) {}

  // libcurl asks for more of the text once it has written what it was given, and writes the dot when there is no more. The
  // dot itself is not in sight: libcurl 7.88 does not show it, newer ones may hold text back and write it with it. So from here on
  // it may be out, and nothing that was read before can be the answer to it.
  std::size_t read(char* to, std::size_t room) {
    const std::size_t bytes = std::min(room, text_.size());
    if (bytes == 0) {
      dot_ = true;
      forget();
    }
    std::memcpy(to, text_.data(), bytes);
    text_.remove_prefix(bytes);
    return bytes;
  }

  void see(curl_infotype kind, std::string_view line) {
    if (kind == CURLINFO_HEADER_OUT) {
      command(line);
    } else if (kind == CURLINFO_HEADER_IN && !over_) {
      reply(line);
    }
  }

  bool dot() const { return dot_; }
  // Of the last complete reply to the newest command; 0: it was not answered.
  int code() const { return complete_ ? code_ : 0; }
  // Whether the newest command concerns the message; those before it, us.
  bool about_message() const { return about_message_; }
  const std::string& text() const { return reply_; }
  const std::string& last_line() const { return last_line_; }

 private:
  void command(std::string_view line) {
    if (line.starts_with("QUIT")) over_ = true;
    if (dot_ || over_) return;
    forget();
    // One refusal to these, and libcurl goes no further.
    about_message_ = line.starts_with("MAIL") || line.starts_with("RCPT") || line.starts_with("DATA");
  }

  void reply(std::string_view line) {
    if (complete_) forget();
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    const bool has_code = line.size() >= 3 && line.find_first_not_of("0123456789") >= 3;
    if (reply_.size() < CurlRequest::body_bytes_max) (reply_ += line) += '\n';
    last_line_ = line.size() > 4 ? line.substr(4) : "";
    if (!has_code || (line.size() > 3 && line[3] != ' ')) return;
    code_ = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
    complete_ = true;
    over_ = dot_ || (about_message_ && code_ >= 400);
    // Or libcurl would wait for the answer to its QUIT, for as long as two minutes, whatever the deadline.
    if (over_) request_.stop_listening();
  }

  void forget() {
    reply_.clear();
    last_line_.clear();
    code_ = 0;
    complete_ = false;
  }

  CurlRequest& request_;
  std::string_view text_;
  std::string reply_;
  std::string last_line_;
  int code_ = 0;
  bool complete_ = false;
  bool about_message_ = false;
  bool dot_ = false;
  bool over_ = false;
};

std::size_t on_read(char* to, std::size_t size, std::size_t count, void* dialogue) {
  return static_cast<Dialogue*>(dialogue)->read(to, size * count);
}

// What the server calls the message; its whole reply where that has no form that is known.
std::string queue_id_of(const std::string& line) {
  for (const std::string_view before : {"queued as ", "id="}) {
    if (const std::size_t at = line.find(before); at != std::string::npos) {
      return line.substr(at + before.size(), line.find_first_of(" ;,", at + before.size()) - at - before.size());
    }
  }
  return line.substr(0, queue_id_bytes_max);
}

Answer answer_of_reply(int code, bool about_message) {
  if (code / 100 == 4) return Answer::not_now;
  const bool wants_login = code == 530 || code == 534 || code == 535 || code == 538;
  return wants_login || !about_message ? Answer::unauthorized : Answer::refused;
}

Outcome outcome_of(const Dialogue& dialogue, const CurlRequest& transfer, CURLcode code, const MailMessage& letter) {
  Outcome outcome;
  outcome.status = dialogue.code();
  outcome.response = effects::beginning_of(dialogue.text());
  if (dialogue.dot() && outcome.status / 100 == 2) {
    outcome.phase = Phase::answered;
    outcome.answer = Answer::done;
    outcome.object = letter.message_id;
    outcome.request_id = queue_id_of(dialogue.last_line());
    return outcome;
  }
  if (outcome.status / 100 == 4 || outcome.status / 100 == 5) {
    outcome.phase = Phase::answered;
    outcome.answer = answer_of_reply(outcome.status, dialogue.about_message());
    outcome.error = "the mail server said " + std::to_string(outcome.status) + " " + dialogue.last_line().substr(0, queue_id_bytes_max) +
                    ". HINT: " + (outcome.answer == Answer::unauthorized ? "are username and password right, and may this machine send by it?"
                                                                    : "its text says what is wrong");
    return outcome;
  }
  outcome.phase = dialogue.dot() ? Phase::sent : Phase::nothing;
  outcome.error = dialogue.dot() && code == CURLE_OK ? "the mail server's reply cannot be understood. HINT: is this a mail server?"
                                                     : transfer.error_of(code);
  return outcome;
}

}  // namespace

SmtpProvider::SmtpProvider(SmtpOptions options) : options_(checked(std::move(options))) {}

SmtpProvider::~SmtpProvider() = default;

Outcome SmtpProvider::call(const Request& request, Deadline deadline) {
  const MailMessage letter = letter_of(request, options_);
  if (!letter.fault.empty()) return effects::refused_unsent(letter.fault);
  CurlRequest transfer({options_.url, "smtp,smtps", options_.ca_file, options_.connect_timeout});
  Dialogue dialogue(transfer, letter.text);
  transfer.watch([&](curl_infotype kind, std::string_view bytes) { dialogue.see(kind, bytes); });
  if (!options_.username.empty()) {
    transfer.set(CURLOPT_USERNAME, options_.username.c_str());
    transfer.set(CURLOPT_PASSWORD, options_.password.c_str());
  }
  transfer.set(CURLOPT_USE_SSL, static_cast<long>(options_.require_tls ? CURLUSESSL_ALL : CURLUSESSL_TRY));
  transfer.set(CURLOPT_MAIL_FROM, letter.from.c_str());
  for (const std::string& address : letter.to) transfer.add_recipient(address);
  // Without the size of the text: libcurl compares it with the bytes that it wrote, which dots that it doubled are among, and
  // would end a message early when the two happen to be equal.
  transfer.set(CURLOPT_UPLOAD, 1L);
  transfer.set(CURLOPT_READFUNCTION, &on_read);
  transfer.set(CURLOPT_READDATA, &dialogue);
  const CURLcode code = transfer.perform(deadline);
  return outcome_of(dialogue, transfer, code, letter);
}

}  // namespace v1
}  // namespace outbox

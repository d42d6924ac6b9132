// Structured output: from what a client asks for (OpenAI's response_format, vLLM's guided_json) to a constraint.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto trie, TokenTrie::Create(*tokenizer, config.vocab_size));   // once a model
//   SWIFTKV_ASSIGN_OR_RETURN(request.constraint, CompileJsonSchema(R"({"type": "integer"})", trie));
//
// Every text that is allowed satisfies the schema; not every text that satisfies it is allowed
// (docs/structured-output.md says which: members come in the schema's order, there is little whitespace, numbers are of
// limited length). A keyword that can't be kept is an error, never ignored.
#ifndef SWIFTKV_GRAMMAR_STRUCTURED_OUTPUT_H_
#define SWIFTKV_GRAMMAR_STRUCTURED_OUTPUT_H_

#include <memory>
#include <string_view>

#include "base/status.h"
#include "engine/token_constraint.h"
#include "grammar/token_trie.h"

namespace swiftkv {

inline constexpr size_t kMaxSchemaBytes = 256 << 10;

// `schema`: a JSON object in JSON Schema, draft 2020-12. Takes milliseconds, at worst some tenths of a second. Errors,
// all kInvalidInput: no JSON; larger than kMaxSchemaBytes, 64 levels, 8192 members of an object or the states of an
// automaton; a keyword that is not supported or used wrongly, with its place; no text satisfies it.
Result<std::shared_ptr<const TokenConstraintFactory>> CompileJsonSchema(std::string_view schema,
                                                                        std::shared_ptr<const TokenTrie> trie);

// Any JSON object (response_format json_object). Error kInvalidInput: the vocabulary can't spell one.
Result<std::shared_ptr<const TokenConstraintFactory>> CompileJsonObject(std::shared_ptr<const TokenTrie> trie);

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_STRUCTURED_OUTPUT_H_

// The normalizer, pre_tokenizer, post_processor and decoder sections of tokenizer.json.
#ifndef SWIFTKV_TEXT_COMPONENTS_JSON_H_
#define SWIFTKV_TEXT_COMPONENTS_JSON_H_

#include "base/status.h"
#include "text/json_reader.h"
#include "text/pipeline.h"

namespace swiftkv {

// Each reads one section of the file's top-level object into `parts`; a missing or null section is none.
// Errors kInvalidInput: a type or a setting that is not supported, with the field's place.
Status ReadNormalizer(const JsonObject& file, TokenizerParts& parts);
Status ReadPreTokenizer(const JsonObject& file, TokenizerParts& parts);
Status ReadPostProcessor(const JsonObject& file, TokenizerParts& parts);
Status ReadDecoder(const JsonObject& file, TokenizerParts& parts);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_COMPONENTS_JSON_H_

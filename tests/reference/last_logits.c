/* Logits of prompts' last positions by llama.cpp: `last_logits [--served] MODEL.gguf`, prompts on standard
 * input.
 *
 * A prompt is a line of comma-separated token ids; the answer is a line of numbers, one for each
 * token of the vocabulary. The cache is f32 and attention is the plain one, so that what differs
 * from other programs is how llama.cpp multiplies; with `--served` both are what it takes by default. */

#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES_MAX = 1 << 16, TOKENS_MAX = 1024 };

static void only_errors(enum ggml_log_level level, const char *text, void *unused) {
    (void)unused;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static struct llama_context *new_context(struct llama_model *model, int served) {
    struct llama_context_params options = llama_context_default_params();
    options.n_ctx = options.n_batch = options.n_ubatch = TOKENS_MAX;
    if (!served) {
        options.type_k = options.type_v = GGML_TYPE_F32;
        options.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    options.n_threads = options.n_threads_batch = 1;
    return llama_init_from_model(model, options);
}

static int run(struct llama_context *context, int vocabulary, llama_token *tokens, int count) {
    llama_memory_clear(llama_get_memory(context), true);
    if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) return 1;
    const float *logits = llama_get_logits_ith(context, -1);
    for (int id = 0; id < vocabulary; id++) printf("%s%.9g", id ? " " : "", (double)logits[id]);
    putchar('\n');
    return 0;
}

int main(int argc, char **argv) {
    static char line[LINE_BYTES_MAX];
    static llama_token tokens[TOKENS_MAX];
    const int served = argc == 3 && strcmp(argv[1], "--served") == 0;
    if (argc != 2 + served) return 2;
    llama_log_set(only_errors, NULL);
    llama_backend_init();
    struct llama_model_params options = llama_model_default_params();
    options.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(argv[argc - 1], options);
    if (!model) return 1;
    struct llama_context *context = new_context(model, served);
    if (!context) return 1;
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    while (fgets(line, sizeof line, stdin)) {
        int count = 0;
        for (char *id = strtok(line, ","); id && count < TOKENS_MAX; id = strtok(NULL, ","))
            tokens[count++] = (llama_token)atoi(id);
        if (run(context, vocabulary, tokens, count) != 0) return 1;
    }
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
